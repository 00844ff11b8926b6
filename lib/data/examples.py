"""Random access to examples: arrays in memory, or rows of a prepared TFDS split.

Both kinds are a `splits.Source`, and both can be a source of Grain's.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lib import errors

CHUNK = 1024  # examples read from a file at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples held in memory.

    Attributes:
      images: uint8 [N, H, W, C].
      labels: int32 [N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Returns N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one example."""
        return {"image": self.images[index], "label": self.labels[index]}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at `indices`, stacked."""
        return {"image": self.images[indices], "label": self.labels[indices]}

    def select(self, indices: np.ndarray) -> "Arrays":
        """Returns the source of only the examples at `indices`."""
        return Arrays(self.images[indices], self.labels[indices])


class Table(NamedTuple):
    """One split as TFDS has it on disk, and how to read an example of it.

    Attributes:
      name: of the data set, for messages.
      split: TFDS's name of the split.
      rows: the TFDS data source.
      image: name of the field that holds the image, uint8 [H, W, C].
      label: name of the field that holds the class, an integer.
      shape: (H, W, C) of every image.
      classes: labels lie in [0, classes).
    """

    name: str
    split: str
    rows: Any
    image: str
    label: str
    shape: tuple[int, int, int]
    classes: int


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Examples that stay on disk: rows `indices` of a table, read when asked for."""

    table: Table
    indices: np.ndarray

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one example; raises a `UserError` if it is not as the table says."""
        row = int(self.indices[index])
        with intact(self.table.name):
            raw = self.table.rows[row]
        return self._example(row, raw)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the examples at `indices` and stacks them; errors as for one."""
        rows = self.indices[indices].tolist()
        images = np.empty((len(rows), *self.table.shape), np.uint8)
        labels = np.empty(len(rows), np.int32)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            with intact(self.table.name):
                read = self.table.rows.__getitems__(chunk)
            for i, (row, raw) in enumerate(zip(chunk, read, strict=True), start):
                example = self._example(row, raw)
                images[i], labels[i] = example["image"], example["label"]
        return {"image": images, "label": labels}

    def select(self, indices: np.ndarray) -> "Records":
        """Returns the source of only the examples at `indices`; reads nothing."""
        return Records(self.table, self.indices[indices])

    def read(self) -> Arrays:
        """Reads every example into memory; errors as for one."""
        read = self.gather(np.arange(len(self)))
        return Arrays(read["image"], read["label"])

    def _example(self, row: int, raw: dict[str, Any]) -> dict[str, np.ndarray]:
        table = self.table
        image, label = raw[table.image], int(raw[table.label])
        where = f"example {row} of split {table.split!r} of data set {table.name!r}"
        if image.shape != table.shape:
            raise errors.UserError(
                f"{where} is an image of shape {image.shape}, expected {table.shape}: "
                "all images of a set must have one shape"
            )
        if not 0 <= label < table.classes:
            raise errors.UserError(
                f"{where} has {table.label} {label}, expected 0 to {table.classes - 1}"
            )
        return {"image": image, "label": np.int32(label)}


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
