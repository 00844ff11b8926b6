"""What a variable of the program is while it is exported.

Constants are NumPy arrays, data is a tensor of the graph, and what the next equations
may still change is *pending*: an object with `force(graph) -> Tensor`.

A tensor is stored with its axes in any order. A transposition only changes the note of
that order, so convolutions hand each other `[N, C, H, W]`, whatever the program says.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

Shape = tuple[Any, ...]  # whole numbers, or JAX's symbolic dimensions


class Codes(NamedTuple):
    """Whole numbers that a constant is made of: `weight = codes * scale`.

    Attributes:
      codes: int8, the weight's shape.
      scale: float, broadcasts against `codes`.
    """

    codes: np.ndarray
    scale: np.ndarray


class Const(NamedTuple):
    """A value that is known.

    Attributes:
      array: of the value's rank. An axis may have length 1 where `shape` has more:
        the array is meant to be repeated along it.
      shape: as the program has it.
      codes: what the array is made of, where that is known.
      why: where it is not known, what the array is instead, for a message.
      blocks: `nbits.Blocks`, where it is to be stored as such.
    """

    array: np.ndarray
    shape: Shape
    codes: Codes | None = None
    why: str = "is computed in the program"
    blocks: Any = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the elements."""
        return self.array.dtype


class Tensor(NamedTuple):
    """A tensor of the graph.

    Attributes:
      name: of the graph's value.
      shape: as the program has it.
      dtype: of the elements.
      order: the program's axes in the order in which they are stored.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    order: tuple[int, ...]


class Pending(Protocol):
    """A value that is not in the graph yet."""

    shape: Shape
    dtype: np.dtype

    def force(self, graph: Any) -> Tensor:
        """Returns it as a tensor of the graph; a second call adds no nodes."""
        ...


Value = Const | Tensor | Pending


def tensor(name: str, shape: Shape, dtype: Any) -> Tensor:
    """Returns a tensor that is stored as the program has it."""
    return Tensor(name, tuple(shape), np.dtype(dtype), tuple(range(len(shape))))


def known(array: Any) -> Const:
    """Returns an array as a value."""
    array = np.asarray(array)
    return Const(array, array.shape)
