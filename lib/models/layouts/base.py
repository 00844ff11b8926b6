"""What a layout is: where in other libraries' files a model's weights stand."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

Convert = Callable[[np.ndarray], np.ndarray]


class Part(NamedTuple):
    """A weight that takes more than the usual transposition (see `usual`).

    Attributes:
      name: of theirs; several of our weights may be parts of one of theirs.
      convert: their array -> ours. It may fail with a `ValueError` or `IndexError` on
        an array of an impossible shape, and only moves values: it is also called on
        views that repeat one number, to learn shapes.
    """

    name: str
    convert: Convert


class Layout(NamedTuple):
    """The names of one family of files.

    Attributes:
      family: what its files are known as, for messages.
      place: (path of ours, the model) -> their name, or a `Part`. The path begins with
        the collection: `params/block_0/attention/query/kernel`.
      prefixes: each of which may stand before any of their names, or be missing.
      buffers: regular expression of names (without prefix) that hold no weights.
      endings: {ending: ending}: older spellings of names -> those of `place`.
      copies: {name: name}: the first repeats the second, where it is there at all.
      fields: the `config.json` beside the weights -> the model's fields that it decides
        and shapes do not tell, a `KeyError` where it is of another family; None: such
        files do not come with one.
    """

    family: str
    place: Callable[[str, nn.Module], str | Part]
    prefixes: tuple[str, ...] = ()
    buffers: str = r"$^"
    endings: Mapping[str, str] = {}
    copies: Mapping[str, str] = {}
    fields: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


# Number of a kernel's axes -> the order in which PyTorch's become ours: dense
# [out, in] -> [in, out], convolutions [out, in, ...] -> [..., in, out].
_ORDER = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}

# The leaves of norms -> PyTorch's names.
NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def usual(path: str) -> Convert:
    """Returns what makes our weight at `path` of PyTorch's array.

    A kernel's axes come in our order; everything else stays as it is.
    """
    return kernel if path.rpartition("/")[2] == "kernel" else same


def same(value: np.ndarray) -> np.ndarray:
    """Returns the array as it is."""
    return value


def kernel(value: np.ndarray) -> np.ndarray:
    """Returns PyTorch's dense kernel or convolution with its axes in our order."""
    return value.transpose(_ORDER.get(value.ndim, range(value.ndim)))


def unkernel(value: np.ndarray) -> np.ndarray:
    """Returns the inverse of `kernel`."""
    order = _ORDER.get(value.ndim, range(value.ndim))
    return value.transpose(np.argsort(order))


def piece(number: int, pieces: int, axis: int = 0, after: Convert = kernel) -> Convert:
    """Returns what takes one of equal pieces of an array, then converts it.

    Args:
      number: of the piece, from 0.
      pieces: how many there are, such as query, key and value in one kernel.
      axis: of theirs along which they stand behind one another.
      after: what is done to the piece.
    """

    def convert(value: np.ndarray) -> np.ndarray:
        return after(np.split(value, pieces, axis)[number])

    return convert


def reshaped(*shape: int, after: Convert = kernel) -> Convert:
    """Returns what converts an array and gives it a shape, -1 for what is left."""
    return lambda value: after(value).reshape(shape)


def weight_or_bias(path: str) -> str:
    """Returns PyTorch's name of a leaf of a dense layer, convolution or norm."""
    leaf = path.rpartition("/")[2]
    return {"kernel": "weight", "embedding": "weight", **NORM}[leaf]
