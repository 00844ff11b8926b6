"""A contraction with a known weight, kept until something else than constants uses it.

Constants that scale its channels or are added to them (biases, batch norm, the scale of
attention) become part of its weight and bias.
"""

from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export import integers, nbits
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Codes, Const, Shape, Tensor


class Contraction(NamedTuple):
    """A contraction with a weight: `(x * weight) * scale + offset`.

    Attributes:
      op: "Conv", "Gemm" or "MatMul".
      x: name of its input, as the operator wants it.
      grid: of that input, `integers.Affine` or `Dynamic`; None if it is not rounded.
      weight: float, as the operator wants it; its channels are on `axis`.
      codes: what the weight is made of, where the input is rounded.
      blocks: what it is stored as, where only the weight is rounded.
      axis: 0 or 1.
      scale, offset: float64, one for each channel.
      channels: axes of the result that are the channels, as the program counts them.
      attributes: of the operator.
      split: shape of the operator's result where it is another one than Gemm gives.
      shape, dtype, order: of the result.
      site: name of the contraction.
      accuracy: of a product with `blocks`, see `integers.Plan`.
    """

    op: str
    x: str
    grid: integers.Affine | integers.Dynamic | None
    weight: np.ndarray
    codes: Codes | None
    blocks: nbits.Blocks | None
    axis: int
    scale: np.ndarray
    offset: np.ndarray
    channels: tuple[int, ...]
    attributes: dict[str, Any]
    split: Shape | None
    shape: Shape
    dtype: np.dtype
    order: tuple[int, ...]
    site: str
    accuracy: int = 0

    def folded(self, op: str, c: Const, *, swapped: bool) -> "Contraction | None":
        """Returns it with `self op c` (swapped: `c op self`) made part of it.

        Returns None if `c` differs within a channel, or stands below the fraction.
        """
        rank = len(self.shape)
        array = c.array.reshape((1,) * (rank - c.array.ndim) + c.array.shape)
        others = tuple(i for i in range(rank) if i not in self.channels)
        if any(array.shape[i] != 1 for i in others) or (op == "div" and swapped):
            return None
        if self.dtype.kind != "f" or len(c.shape) not in (0, rank):
            return None
        shape = tuple(self.shape[i] for i in self.channels)
        value = np.broadcast_to(array.squeeze(others), shape).ravel().astype(np.float64)
        scale, offset = self.scale, self.offset
        match op:
            case "add":
                offset = offset + value
            case "sub" if swapped:
                scale, offset = -scale, value - offset
            case "sub":
                offset = offset - value
            case "mul":
                scale, offset = scale * value, offset * value
            case "div":
                if not value.all():
                    return None
                scale, offset = scale / value, offset / value
        return self._replace(scale=scale, offset=offset)

    def force(self, graph: Graph) -> Tensor:
        """Returns the tensor: one operator, and an Add where it has no bias."""
        scope, graph.scope = graph.scope, self.site
        name = self._few_bits(graph)
        if name is not None:
            extra = self.offset if self.offset.any() else None
        else:
            names, extra = self._arrays(graph)
            name = graph.node(self.op, self.x, *names, **self.attributes)
        if extra is not None:
            name = graph.node("Add", name, graph.array(extra, self.dtype))
        if self.split is not None:
            name = graph.reshape(name, self.split)
        graph.scope = scope
        return Tensor(name, self.shape, self.dtype, self.order)

    def _few_bits(self, graph: Graph) -> str | None:
        """Returns the product with the weight in blocks, if it can be stored so."""
        if self.blocks is None or self.dtype != np.float32:
            return None
        return nbits.product(graph, self.x, self.blocks, self.scale, self.accuracy)

    def _arrays(self, graph: Graph) -> tuple[list[str], np.ndarray | None]:
        """Returns the names of weight and bias, and what is to be added behind."""
        bias = self.offset if self.offset.any() else None
        extra = None
        if self.op == "MatMul":
            extra, bias = bias, None
        if self.grid is not None:
            names = integers.weights(
                graph, self.grid, self.codes, self.axis, self.scale, bias
            )
            return names, extra
        lengths = [1] * self.weight.ndim
        lengths[self.axis] = -1
        weight = self.weight.astype(np.float64) * self.scale.reshape(lengths)
        names = [graph.array(weight, self.dtype)]
        return names + ([] if bias is None else [graph.array(bias, self.dtype)]), extra
