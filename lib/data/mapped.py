"""Examples whose inputs lie in a temporary file, which goes with the process."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lib import files


@dataclasses.dataclass(frozen=True, eq=False)
class Mapped:
    """Examples that are read from a file when they are asked for.

    Attributes:
      inputs: [N, ...], a map of the file.
      labels: int32 [N], in memory.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Returns N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one example."""
        return {"input": np.array(self.inputs[index]), "label": self.labels[index]}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the examples at `indices` and stacks them."""
        return {"input": np.array(self.inputs[indices]), "label": self.labels[indices]}


def written(
    parts: Iterable[np.ndarray], shape: tuple[int, ...], dtype: Any
) -> np.memmap:
    """Returns a map of a temporary file of what the parts are, one behind another.

    The file has no name and is gone when nothing uses the map any more. It lies where
    Python's temporary files do: in the folder that the environment's TMPDIR names.

    Args:
      parts: arrays [n, ...] of this dtype, N rows in all.
      shape: of the whole, (N, ...).
      dtype: of the whole.

    Raises:
      UserError: the folder cannot be written, or is full.
    """
    folder = pathlib.Path(tempfile.gettempdir())
    with _told(folder):
        file = tempfile.TemporaryFile(dir=folder, buffering=0)
    with file:
        for part in parts:
            left = memoryview(np.ascontiguousarray(part, dtype)).cast("B")
            while len(left):
                with _told(folder):
                    left = left[file.write(left) :]
        return np.memmap(file, dtype, "r", shape=shape)


@contextlib.contextmanager
def _told(folder: pathlib.Path) -> Iterator[None]:
    """Tells in one line that the folder has no room."""
    try:
        yield
    except OSError as e:
        raise files.unwritable(folder / "(a temporary file)", e) from e
