"""Changes of a stage's weights before it starts, by name."""

from collections.abc import Callable
from typing import Any

from lib import errors

PREPARATIONS: dict[str, Callable[..., Any]] = {}


def prepare(config: Any, stage: Any, scene: Any, rounded: Callable) -> tuple[Any, Any]:
    """Returns (params, variables) after the preparations of `stage.prepare`."""
    for name in stage.prepare:
        errors.lookup(PREPARATIONS, name, "preparation")
    return scene.params, scene.variables
