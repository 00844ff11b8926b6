"""What every source of data gives: splits of rows with random access.

A row is a dict of fields. What becomes of the rows (images, texts, tables) is for the
kinds of data to know.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from lib import errors


class Rows(Protocol):
    """One split as a source has it."""

    def __len__(self) -> int:
        """Returns the number of rows."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one row: field -> value."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
        """Returns several rows."""
        ...


class Opened(NamedTuple):
    """A source that was found.

    Attributes:
      name: as the user wrote it.
      splits: name -> rows.
      fields: names of a row's fields.
      classes: field -> the names of its classes, for fields that hold a class as an
        integer already; other fields' classes are what the training split holds.
      images: the fields that are known to hold an image, uint8 [H, W, C]; None where
        the source does not know.
      counts: what the source left out, in words -> how often; as of a `Dataset`.
    """

    name: str
    splits: Mapping[str, Rows]
    fields: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...] | None = None
    counts: Mapping[str, int] = MappingProxyType({})


def split_of(opened: Opened, split: str) -> Rows:
    """Returns the rows of a split; raises a `UserError` if it is missing or empty."""
    if split not in opened.splits:
        raise errors.UserError(
            f"data set {opened.name!r} has no split {split!r}; "
            f"{errors.hint(split, opened.splits)}"
        )
    rows = opened.splits[split]
    if not len(rows):
        raise errors.UserError(
            f"the {split} split of data set {opened.name!r} is empty"
        )
    return rows


def has_field(opened: Opened, field: str) -> None:
    """Raises a `UserError` unless the rows have the field."""
    if field not in opened.fields:
        raise errors.UserError(
            f"data set {opened.name!r} has no field {field!r}; "
            f"{errors.hint(field, opened.fields)}"
        )
