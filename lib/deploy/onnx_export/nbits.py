"""Weights of few bits under activations in float: `com.microsoft.MatMulNBits`.

The operator reads codes of 4 or 8 bits in blocks of rows, each with a scale of its own
for every column: the file is as small as the codes, and one example at a time runs
faster because less is read. Convolutions have no such operator.
"""

from typing import NamedTuple

import numpy as np

from lib import representations, tree
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Codes, Const

_BLOCKS = (16, 32, 64, 128, 256)  # rows of a block that the runtime takes


class Blocks(NamedTuple):
    """A weight as codes, each element with its own scale: `(codes - zero) * scale`.

    Attributes:
      codes: uint8, the weight's shape.
      scale: float32, of the same shape.
      zero: uint8, of the same shape; None where the middle of the codes stands for 0.
      bits: 4 or 8.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    bits: int

    def turned(self, how) -> "Blocks":
        """Returns them with `how` done to each array."""
        zero = None if self.zero is None else how(self.zero)
        return Blocks(how(self.codes), how(self.scale), zero, self.bits)


def constants(frozen: representations.Frozen) -> dict[str, Const]:
    """Returns {path: weight}, with its blocks where it is `Quantized`."""
    flat = {path: representations.of(x) for path, x in tree.flatten(frozen).items()}
    found = {}
    for path, rep in flat.items():
        while isinstance(rep, representations.Tied):
            rep = flat[rep.path]
        array = representations.materialize(rep)
        blocks = _blocks(rep) if array.ndim > 1 else None
        found[path] = Const(array, array.shape, blocks=blocks, codes=_table(rep))
    return found


def _blocks(rep: representations.Representation) -> Blocks | None:
    mask = None
    if isinstance(rep, representations.Sparse):
        mask, rep = np.asarray(rep.mask), rep.values
    if not isinstance(rep, representations.Quantized):
        return None
    codes, bits = np.asarray(rep.codes), 4 if rep.bits <= 4 else 8
    view = (-1, rep.group, codes.shape[-1]) if rep.group else codes.shape

    def each(x) -> np.ndarray:
        return np.broadcast_to(np.asarray(x), codes.reshape(view).shape).reshape(
            codes.shape
        )

    zero = None
    if rep.zero_point is None:
        codes = (codes.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    else:
        zero = each(rep.zero_point).astype(np.uint8)
    if mask is not None:
        codes = np.where(mask, codes, 2 ** (bits - 1) if zero is None else zero)
    scale = each(rep.scale).astype(np.float32)
    return Blocks(codes.astype(np.uint8), scale, zero, bits)


def _table(rep: representations.Representation) -> Codes | None:
    """Returns int8 codes of a table that rows are gathered from, if it has them."""
    if not isinstance(rep, representations.Quantized) or rep.group:
        return None
    if rep.zero_point is not None:
        return None
    codes, scale = np.asarray(rep.codes, np.int8), np.asarray(rep.scale, np.float32)
    return Codes(codes, scale.reshape((1,) * (codes.ndim - scale.ndim) + scale.shape))


def product(
    graph: Graph, x: str, made: Blocks, factor: np.ndarray, accuracy: int
) -> str | None:
    """Returns the name of `x @ (weight * factor)`; None if it has no such blocks.

    Args:
      graph: to add to.
      x: name of the input, `[..., rows]`.
      made: of a weight `[rows, columns]`.
      factor: of each column.
      accuracy: the operator's accuracy_level.
    """
    rows, columns = made.codes.shape
    sizes = [size for size in _BLOCKS if _even(made, size)]
    if not sizes or rows < _BLOCKS[0]:
        return None
    cost = {b: -(-rows // b) * (b * made.bits // 8 + 4) for b in sizes}
    block = min(sizes, key=cost.__getitem__)
    count = -(-rows // block)
    middle = 2 ** (made.bits - 1)
    codes = np.full((columns, count * block), middle, np.uint8)
    codes[:, :rows] = made.codes.T
    scale = made.scale[::block].T * factor.astype(np.float32)[:, None]
    inputs = [
        graph.array(_packed(codes, made.bits).reshape(columns, count, -1)),
        graph.array(scale, np.float32),
    ]
    if made.zero is not None:
        zeros = np.ascontiguousarray(made.zero[::block].T)
        inputs.append(graph.array(_packed(zeros, made.bits).reshape(columns, -1)))
    return graph.node(
        "MatMulNBits",
        x,
        *inputs,
        K=rows,
        N=columns,
        bits=made.bits,
        block_size=block,
        accuracy_level=accuracy,
    )


def _even(made: Blocks, size: int) -> bool:
    """Returns whether scales and zero points are the same along blocks of rows."""
    starts = np.arange(len(made.scale)) // size * size
    parts = [made.scale] if made.zero is None else [made.scale, made.zero]
    return all(np.array_equal(part, part[starts]) for part in parts)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Returns codes of 4 bits two a byte along the last axis, the first one low."""
    if bits == 8:
        return codes
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return codes[:, ::2] | codes[:, 1::2] << 4
