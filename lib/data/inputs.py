"""What makes a model's inputs of stored examples, whatever kind of data they are.

It is fitted to the training split alone, runs on the device inside every jitted step
and every exported program, and travels in checkpoints and artifacts as plain data, so
that what is served is prepared as what was trained on.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from lib import errors
from lib.data import normalise
from lib.data.table import inputs as table_inputs
from lib.data.text import tokens


class Inputs(Protocol):
    """From a batch of stored examples to the one array that a model takes."""

    KIND: str  # a key of `KINDS`
    DTYPE: Any  # of an input

    def __call__(self, stored: jax.Array) -> jax.Array:
        """Returns inputs [B, ...] of stored examples [B, ...]; pure, jit-able."""
        ...

    def stored(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Returns one stored example (no batch axis) whose input has this shape."""
        ...

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON has it; the inverse of its kind's `from_plain`."""
        ...


# Kind -> the inverse of `plain`.
KINDS: dict[str, Callable[[dict[str, Any]], Inputs]] = {
    "image": normalise.from_plain,
    "table": table_inputs.from_plain,
    "text": tokens.from_plain,
}


def to_label(inputs: Inputs) -> dict[str, Any]:
    """Returns what the label of an artifact keeps."""
    return {"kind": inputs.KIND, **inputs.plain()}


def from_label(values: dict[str, Any]) -> Inputs:
    """Returns what `to_label` was called on.

    Raises:
      UserError: of an unknown kind.
    """
    values = dict(values)
    return errors.lookup(KINDS, values.pop("kind"), "kind of inputs")(values)
