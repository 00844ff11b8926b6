"""Who teaches a stage: earlier stages, by name, or the average of its own weights."""

import re
from collections.abc import Sequence
from typing import Any

from lib import errors, objectives
from lib.train import step, teachers

SELF = "self"


def names(stage: Any) -> tuple[str, ...]:
    """Returns the stages that teach a stage; () for none and for itself."""
    return () if itself(stage) else _named(stage)


def itself(stage: Any) -> bool:
    """Returns whether the moving average of a stage's own weights teaches it."""
    return _named(stage) == (SELF,)


def _named(stage: Any) -> tuple[str, ...]:
    """Returns the names in a stage's `teacher`, in order.

    It is text, whose type no command line changes: "a,b", or a tuple as one types it,
    "('a', 'b')". A config that made it a tuple of texts means the same.
    """
    given = stage.teacher
    texts = (given,) if isinstance(given, str) else given
    return tuple(n for t in texts for n in re.findall(r"[^\s,'\"()\[\]]+", str(t)))


def check(name: str, stage: Any, earlier: Sequence[str]) -> None:
    """Raises a `UserError` for a teacher that cannot be, or terms that lack one.

    Args:
      name: the stage's.
      stage: its settings.
      earlier: the stages before it, which may teach.
    """
    for other in names(stage):
        if other not in earlier:
            raise errors.UserError(
                f"{name}.teacher {other!r} is no earlier stage; "
                f"{errors.hint(str(other), earlier)}"
            )
    if itself(stage) and not stage.ema > 0:
        raise errors.UserError(
            f"{name}.teacher={SELF!r} is the moving average of its own weights; "
            f"set {name}.ema above 0, such as 0.99"
        )
    for term in stage.objective:
        if term in objectives.NEEDS_TEACHER and not _named(stage):
            raise errors.UserError(
                f"{name}: term {term!r} needs a teacher; set {name}.teacher to one of "
                f"the earlier stages: {', '.join(earlier) or 'none'}"
            )


def of(
    networks: Sequence[step.Network], weights: Sequence[Any]
) -> tuple[teachers.Teacher | None, Any]:
    """Returns the teacher of no, one or several networks, and its weights.

    Args:
      networks: of the stages that teach, in order.
      weights: (params, variables, ranges) of each.
    """
    if not networks:
        return None, None
    if len(networks) == 1:
        return teachers.one(networks[0]), weights[0]
    return teachers.several(networks), tuple(weights)
