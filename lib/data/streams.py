"""What defines a stream of training batches, so that a saved position finds its own."""

from typing import Any

from lib import errors
from lib.data import splits

State = dict[str, Any]  # JSON: string keys, integers


def of(train: splits.Train, batch_size: int, seed: int) -> State:
    """Returns what defines a stream, after checking it.

    Raises:
      UserError: a batch size or a seed out of range.
      TypeError: another split than the training split.
    """
    if not isinstance(train, splits.Train):
        raise TypeError(f"a training feed reads a Train split, got {train!r}")
    positive("batch_size", batch_size)
    if not 0 <= seed < 2**32:
        raise errors.UserError(f"seed must lie in [0, 2**32), got {seed}")
    return {"examples": len(train), "batch_size": int(batch_size), "seed": int(seed)}


def same(ours: State, theirs: State) -> None:
    """Raises a `UserError` unless a saved position is of the stream `ours`."""
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise errors.UserError(
                f"the saved data position is of a stream with "
                f"{key}={theirs.get(key, '(none)')}, this run has {key}={value}"
            )


def positive(name: str, value: int) -> None:
    """Raises a `UserError` for a number below 1."""
    if value < 1:
        raise errors.UserError(f"{name} must be at least 1, got {value}")
