"""Texts of a source, read a chunk at a time, as often as they are wanted."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lib import errors
from lib.data import examples
from lib.data.sources.rows import Opened, has_field, split_of
from lib.data.text.tokens import CHUNK, Text


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Texts of some rows of a split; none is held.

    Attributes:
      opened: the source.
      split: a name of its splits.
      fields: of a row, one or two, that hold text.
      indices: int [N], the rows, in order.
    """

    opened: Opened
    split: str
    fields: tuple[str, ...]
    indices: np.ndarray

    def __len__(self) -> int:
        """Returns N."""
        return len(self.indices)

    def chunks(self) -> Iterator[list[Text]]:
        """Yields the texts in order, some thousands at a time, pairs of two fields.

        Raises:
          UserError: a value is no text.
        """
        rows = self.opened.splits[self.split]
        for start in range(0, len(self), CHUNK):
            some = self.indices[start : start + CHUNK].tolist()
            found = zip(some, rows.__getitems__(some), strict=True)
            yield [self._text(number, row) for number, row in found]

    def __iter__(self) -> Iterator[Text]:
        """Yields one text after another; errors as of `chunks`."""
        for chunk in self.chunks():
            yield from chunk

    def _text(self, number: int, row: dict[str, Any]) -> Text:
        name = self.opened.name
        where = f"example {number} of split {self.split!r} of data set {name!r}"
        texts = tuple(_text(row[field], field, where) for field in self.fields)
        return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def labels_of(
    opened: Opened, split: str, fields: tuple[str, ...], label: str
) -> list[Any]:
    """Returns the labels of a split as the source has them; looks at no text.

    Raises:
      UserError: an unknown or empty split, or an unknown field.
    """
    rows = split_of(opened, split)
    for field in (*fields, label):
        has_field(opened, field)
    found = []
    for start in range(0, len(rows), examples.CHUNK):
        stop = min(start + examples.CHUNK, len(rows))
        found += [row[label] for row in rows.__getitems__(range(start, stop))]
    return found


def _text(value: Any, field: str, where: str) -> str:
    """Returns a field's text; a missing one is empty."""
    if value is None or value != value:  # None or NaN
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as e:
            raise errors.UserError(f"{where}: {field!r} is no UTF-8: {e}") from e
    if not isinstance(value, str):
        raise errors.UserError(f"{where}: {field!r} is no text, got {value!r}")
    return value
