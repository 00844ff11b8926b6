"""dot_general and convolutions -> Gemm, MatMul and Conv, as floats or as integers.

A contraction with a known weight is kept pending, so that constants which scale its
channels or are added to them (biases, batch norm, the scale of attention) become part
of its weight and bias.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export import integers
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.reshaped import Flat
from lib.deploy.onnx_export.values import Codes, Const, Shape, Tensor, Value
from lib.program import Site


class Contraction(NamedTuple):
    """A contraction with a weight: `(x * weight) * scale + offset`.

    Attributes:
      op: "Conv", "Gemm" or "MatMul".
      x: name of its input, as the operator wants it.
      grid: of that input, None if it is not rounded.
      weight: float, as the operator wants it; its channels are on `axis`.
      codes: what the weight is made of, where the input is rounded.
      axis: 0 or 1.
      scale, offset: float64, one for each channel.
      channels: axes of the result that are the channels, as the program counts them.
      attributes: of the operator.
      split: shape of the operator's result where it is another one than Gemm gives.
      shape, dtype, order: of the result.
      site: name of the contraction.
    """

    op: str
    x: str
    grid: integers.Affine | None
    weight: np.ndarray
    codes: Codes | None
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
        bias = self.offset if self.offset.any() else None
        extra = None
        if self.op == "MatMul":
            extra, bias = bias, None
        if self.grid is None:
            lengths = [1] * self.weight.ndim
            lengths[self.axis] = -1
            weight = self.weight.astype(np.float64) * self.scale.reshape(lengths)
            names = [graph.array(weight, self.dtype)]
            names += [] if bias is None else [graph.array(bias, self.dtype)]
        else:
            names = integers.weights(
                graph, self.grid, self.codes, self.axis, self.scale, bias
            )
        name = graph.node(self.op, self.x, *names, **self.attributes)
        if extra is not None:
            name = graph.node("Add", name, graph.array(extra, self.dtype))
        if self.split is not None:
            name = graph.reshape(name, self.split)
        graph.scope = scope
        return Tensor(name, self.shape, self.dtype, self.order)


class Contract(NamedTuple):
    """Makes nodes of sites.

    Attributes:
      plan: what of which site becomes integers.
    """

    plan: integers.Plan

    def __call__(
        self, graph: Graph, site: Site, operands: list[Value], out: Any
    ) -> Value:
        """Returns the result of a site."""
        # `preferred_element_type` may ask for another dtype than the operands have.
        operands = [_cast(graph, x, np.dtype(out.dtype)) for x in operands]
        if site.primitive == "dot_general":
            return self._dot(graph, site, operands, out)
        return self._conv(graph, site, operands, out)

    def _dot(self, graph: Graph, site: Site, operands: list[Value], out: Any) -> Value:
        (summed, batch) = site.params["dimension_numbers"]
        sides = [
            (list(summed[i]), list(batch[i]), _free(operands[i], summed[i], batch[i]))
            for i in range(2)
        ]
        known = [isinstance(x, Const) for x in operands]
        if any(known) and not batch[0]:
            return self._weighted(graph, site, operands, sides, known[1], out)
        return self._product(graph, site, operands, sides, out)

    def _weighted(self, graph, site, operands, sides, last, out) -> Contraction:
        """Returns a product with a known matrix, which is the `last` operand or not."""
        x, w = operands if last else operands[::-1]
        (x_sum, _, x_free), (w_sum, _, w_free) = sides if last else sides[::-1]
        kept, channels = _shape(x, x_free), _shape(w, w_free)
        inner, outer = math.prod(_shape(w, w_sum)), math.prod(channels)
        order = (*w_sum, *w_free)
        name, rows = self._rows(graph, x, x_free, x_sum, kept, inner)

        def matrix(array: np.ndarray) -> np.ndarray:
            array = array.transpose(order).reshape(inner, outer)
            return array if rows is None else array[rows]

        name, grid = self.plan.rounded(graph, site, "lhs" if last else "rhs", name)
        codes = None
        if grid is not None:
            found = integers.codes(site, w, w_free)
            each = np.broadcast_to(
                found.scale.transpose(order), (*(1 for _ in w_sum), *channels)
            )
            codes = Codes(matrix(found.codes), each.reshape(outer))
        stored = tuple(range(len(kept) + len(channels)))
        if not last:  # the weight's axes come first in the program
            n = len(channels)
            stored = (*range(n, n + len(kept)), *range(n))
        ends = len(kept)
        shape = tuple(out.shape)
        return Contraction(
            op="Gemm" if len(kept) == 1 else "MatMul",
            x=name,
            grid=grid,
            weight=matrix(w.array),
            codes=codes,
            axis=1,
            scale=np.ones(outer),
            offset=np.zeros(outer),
            channels=tuple(stored[ends:]),
            attributes={},
            split=None if len(channels) == 1 else tuple(shape[i] for i in stored),
            shape=shape,
            dtype=np.dtype(out.dtype),
            order=stored,
            site=site.name,
        )

    def _rows(self, graph, x, free, summed, kept, inner):
        """Returns the input as `[..., inner]`, and the order of the weight's rows.

        The order is None where it is the weight's own.
        """
        if isinstance(x, Flat) and summed == [1]:
            return x.flat(graph)
        name = graph.stored(x, (*free, *summed))
        if len(summed) != 1:
            name = graph.reshape(name, (*kept, inner))
        return name, None

    def _product(self, graph, site, operands, sides, out) -> Tensor:
        """Returns a product of two tensors, or one for each example of a batch."""
        names = []
        for i, (x, (summed, batch, free)) in enumerate(
            zip(operands, sides, strict=True)
        ):
            order = (*batch, *free, *summed) if i == 0 else (*batch, *summed, *free)
            name = graph.stored(x, order)
            if len(free) != 1 or len(summed) != 1:
                lengths = [_length(x, free), _length(x, summed)]
                name = graph.reshape(
                    name, (*_shape(x, batch), *(lengths if i == 0 else lengths[::-1]))
                )
            names.append(self.plan.rounded(graph, site, ("lhs", "rhs")[i], name)[0])
        name = graph.node("MatMul", *names)
        if any(len(free) != 1 for _, _, free in sides):
            name = graph.reshape(name, out.shape)
        shape = tuple(out.shape)
        return Tensor(name, shape, np.dtype(out.dtype), tuple(range(len(shape))))

    def _conv(self, graph: Graph, site: Site, operands: list[Value], out: Any) -> Value:
        params, (x, w) = site.params, operands
        dims = params["dimension_numbers"]
        pads = params["padding"]
        if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) - {1}:
            raise graph.fail(
                "conv_general_dilated is transposed or grouped by batch",
                "use a convolution without lhs_dilation and batch groups",
            )
        if any(n < 0 for pad in pads for n in pad) or not isinstance(w, Const):
            raise graph.fail(
                "conv_general_dilated crops its input or computes its kernel",
                "crop before it; the kernel must be a parameter",
            )
        name = graph.stored(x, tuple(dims.lhs_spec))
        name, grid = self.plan.rounded(graph, site, "lhs", name)
        count = w.shape[dims.rhs_spec[0]]
        codes = None
        if grid is not None:
            found = integers.codes(site, w, dims.rhs_spec[:1])
            scale = np.broadcast_to(found.scale.ravel(), (count,))
            codes = Codes(found.codes.transpose(dims.rhs_spec), scale)
        return Contraction(
            op="Conv",
            x=name,
            grid=grid,
            weight=w.array.transpose(dims.rhs_spec),
            codes=codes,
            axis=0,
            scale=np.ones(count),
            offset=np.zeros(count),
            channels=(dims.out_spec[1],),
            attributes={
                "dilations": list(params["rhs_dilation"]),
                "group": params["feature_group_count"],
                "kernel_shape": [w.shape[i] for i in dims.rhs_spec[2:]],
                "pads": [*(low for low, _ in pads), *(high for _, high in pads)],
                "strides": list(params["window_strides"]),
            },
            split=None,
            shape=tuple(out.shape),
            dtype=np.dtype(out.dtype),
            order=tuple(dims.out_spec),
            site=site.name,
        )


def _cast(graph: Graph, x: Value, dtype: np.dtype) -> Value:
    """Returns an operand in the dtype of the result, in which the operators compute."""
    if isinstance(x, Const) and all(isinstance(n, int) for n in x.shape):
        return x._replace(array=np.broadcast_to(x.array, x.shape).astype(dtype))
    if x.dtype == dtype:
        return x
    x = graph.force(x)
    name = graph.node("Cast", x.name, to=graph.kind(dtype))
    return x._replace(name=name, dtype=dtype)


def _free(x: Value, summed: Any, batch: Any) -> list[int]:
    return [i for i in range(len(x.shape)) if i not in (*summed, *batch)]


def _shape(x: Value, axes: Any) -> Shape:
    return tuple(x.shape[i] for i in axes)


def _length(x: Value, axes: Any) -> Any:
    return math.prod(_shape(x, axes))
