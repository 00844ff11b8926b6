"""Some of a data set's classes, as a data set of its own."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lib import errors
from lib.data.examples import CHUNK
from lib.data.sources.rows import Opened, Rows, has_field


class Chosen:
    """The rows of some classes, which are numbered anew."""

    def __init__(self, rows: Rows, field: str, numbers: dict[int, int]):
        """Reads nothing yet.

        Args:
          rows: of all classes.
          field: that holds the class, an integer.
          numbers: class that is kept -> its new number.
        """
        self._rows, self._field, self._numbers = rows, field, numbers

    @functools.cached_property
    def _kept(self) -> np.ndarray:
        """Which rows are left; every row is read once, to find its class."""
        kept = []
        for start in range(0, len(self._rows), CHUNK):
            indices = range(start, min(start + CHUNK, len(self._rows)))
            for i, row in zip(indices, self._rows.__getitems__(indices), strict=True):
                if int(row[self._field]) in self._numbers:
                    kept.append(i)
        return np.array(kept, int)

    def __len__(self) -> int:
        """Returns how many are left."""
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one row."""
        return self._renamed(self._rows[int(self._kept[index])])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several rows."""
        read = self._rows.__getitems__(self._kept[np.asarray(indices, int)].tolist())
        return [self._renamed(row) for row in read]

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, self._field: self._numbers[int(row[self._field])]}


def only(opened: Opened, field: str, names: Sequence[str]) -> Opened:
    """Returns the source with the named classes alone, numbered in the order given.

    Args:
      opened: the source.
      field: that holds the class; its classes must be known to the source.
      names: at least two different ones of its classes.

    Raises:
      UserError: the field is no class label, or a name is none of its classes.
    """
    has_field(opened, field)
    known = opened.classes.get(field, ())
    for name in names:
        if name not in known:
            raise errors.UserError(
                f"data.only: field {field!r} of data set {opened.name!r} has no class "
                f"{name!r}; {errors.hint(str(name), known)}"
            )
    if len(set(names)) < max(len(names), 2):
        raise errors.UserError(
            f"data.only names at least two different classes, got {tuple(names)}"
        )
    numbers = {known.index(name): i for i, name in enumerate(names)}
    return opened._replace(
        splits={k: Chosen(rows, field, numbers) for k, rows in opened.splits.items()},
        classes={**opened.classes, field: tuple(names)},
    )
