"""Rows that are held by columns, and made when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lib import errors


class Columns:
    """One split as columns: a `rows.Rows` that also gives a whole column at once."""

    def __init__(self, name: str, split: str, columns: Mapping[str, np.ndarray]):
        """Holds what it is given.

        Args:
          name: of the data set, for messages.
          split: the source's name of it.
          columns: field -> array, all of one length N; numbers [N, ...], or objects
            [N] of Python's texts, booleans and None where a value is missing.
        """
        self._name, self._split, self._columns = name, split, dict(columns)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the columns, in the file's order."""
        return tuple(self._columns)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return next((len(c) for c in self._columns.values()), 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one row."""
        return {field: values[index] for field, values in self._columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several rows."""
        return [self[i] for i in indices]

    def column(self, field: str) -> np.ndarray:
        """Returns a column [N, ...]; a `UserError` where this split has it not."""
        if field not in self._columns:
            raise errors.UserError(
                f"split {self._split!r} of data set {self._name!r} has no column "
                f"{field!r}; {errors.hint(field, self._columns)}"
            )
        return self._columns[field]
