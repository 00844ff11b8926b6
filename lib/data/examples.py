"""Random access to examples: arrays in memory, or rows that are read when asked for.

All kinds are a `splits.Source`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lib import errors
from lib.data.sources.rows import Rows

CHUNK = 1024  # rows read from a file at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples held in memory.

    Attributes:
      fields: name -> array [N, ...]; at least `input`, and `label`, int32 [N].
    """

    fields: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.fields["label"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one example."""
        return {name: values[index] for name, values in self.fields.items()}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at `indices`, stacked."""
        return {name: values[indices] for name, values in self.fields.items()}

    def select(self, indices: np.ndarray) -> "Arrays":
        """Returns the source of only the examples at `indices`."""
        return Arrays(self.gather(indices))


class Table(NamedTuple):
    """One split as its source has it, and how to read an example of it.

    Attributes:
      name: of the data set, for messages.
      split: the source's name of the split.
      rows: of the source.
      decode: a row -> the stored input.
      label: a row -> its class, an integer.
      field: name of the field that holds the class, for messages.
      shape: of every stored input; for an image (H, W, C).
      dtype: of every stored input.
      classes: labels lie in [0, classes).
    """

    name: str
    split: str
    rows: Rows
    decode: Callable[[dict[str, Any]], np.ndarray]
    label: Callable[[dict[str, Any]], int]
    field: str
    shape: tuple[int, ...]
    dtype: Any
    classes: int


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Examples that stay where they are: rows `indices` of a table, read on demand."""

    table: Table
    indices: np.ndarray

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one example; raises a `UserError` if it is not as the table says."""
        row = int(self.indices[index])
        return self._example(row, self.table.rows[row])

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the examples at `indices` and stacks them; errors as for one."""
        rows = self.indices[indices].tolist()
        inputs = np.empty((len(rows), *self.table.shape), self.table.dtype)
        labels = np.empty(len(rows), np.int32)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            read = self.table.rows.__getitems__(chunk)
            for i, (row, raw) in enumerate(zip(chunk, read, strict=True), start):
                example = self._example(row, raw)
                inputs[i], labels[i] = example["input"], example["label"]
        return {"input": inputs, "label": labels}

    def select(self, indices: np.ndarray) -> "Records":
        """Returns the source of only the examples at `indices`; reads nothing."""
        return Records(self.table, self.indices[indices])

    def read(self) -> Arrays:
        """Reads every example into memory; errors as for one."""
        return Arrays(self.gather(np.arange(len(self))))

    def _example(self, row: int, raw: dict[str, Any]) -> dict[str, np.ndarray]:
        table = self.table
        value, label = table.decode(raw), table.label(raw)
        where = f"example {row} of split {table.split!r} of data set {table.name!r}"
        if value.shape != table.shape:
            raise errors.UserError(
                f"{where} is an image of shape {value.shape}, expected {table.shape}: "
                "all images of a set must have one shape; set data.image_shape"
            )
        if not 0 <= label < table.classes:
            raise errors.UserError(
                f"{where} has {table.field} {label}, expected 0 to {table.classes - 1}"
            )
        return {"input": value, "label": np.int32(label)}


class Kept:
    """Examples that are read when first asked for, and then kept in memory.

    From the second epoch on, a batch costs a copy and no decoding. Several threads may
    gather at once; at worst, two of them read the same example.
    """

    def __init__(self, records: Records):
        """Reads nothing yet; takes as much memory as examples were read.

        Args:
          records: what is read.
        """
        self._records = records
        table = records.table
        self._inputs = np.empty((len(records), *table.shape), table.dtype)
        self._labels = np.empty(len(records), np.int32)
        self._read = np.zeros(len(records), bool)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one example; errors as of `Records`."""
        return {k: v[0] for k, v in self.gather(np.array([index])).items()}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at `indices`, stacked; errors as of `Records`."""
        missing = np.unique(indices[~self._read[indices]])
        if missing.size:
            read = self._records.gather(missing)
            self._inputs[missing], self._labels[missing] = read["input"], read["label"]
            self._read[missing] = True  # last: another thread may look
        return {"input": self._inputs[indices], "label": self._labels[indices]}


@contextlib.contextmanager
def intact(name: str) -> Iterator[None]:
    """Turns what the file readers raise for a damaged or missing file into one line."""
    try:
        yield
    except RuntimeError as e:
        reason = str(e).splitlines()[0]
        raise errors.UserError(
            f"data set {name!r} has a damaged file ({reason}); remove the set's folder "
            "from data_dir, so that it can be prepared again"
        ) from e
