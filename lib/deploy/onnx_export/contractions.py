"""dot_general and convolutions -> Gemm, MatMul and Conv, as floats or as integers.

A contraction with a known weight is kept pending (`contraction.py`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export import integers
from lib.deploy.onnx_export.contraction import Contraction
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.reshaped import Flat
from lib.deploy.onnx_export.values import Codes, Const, Shape, Tensor, Value
from lib.program import Site
from lib.program.sites import SIDES


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
        graph.scope = site.name  # until the next equation; nodes are found by it
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
        blocks = None
        if grid is None and w.blocks is not None:
            blocks = w.blocks.turned(matrix)
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
            blocks=blocks,
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
            accuracy=self.plan.accuracy,
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
        """Returns a product of two tensors, or one for each example of a batch.

        The second may stand first, and the result is stored the other way round then.
        """
        pairs = list(zip(map(graph.force, operands), sides, SIDES, strict=True))
        turned = min((pairs, pairs[::-1]), key=_moved)
        names = []
        for i, (x, (summed, batch, free), side) in enumerate(turned):
            name = graph.stored(x, _wanted(i, summed, batch, free))
            if len(free) != 1 or len(summed) != 1:
                lengths = [_length(x, free), _length(x, summed)]
                name = graph.reshape(
                    name, (*_shape(x, batch), *(lengths if i == 0 else lengths[::-1]))
                )
            names.append(self.plan.rounded(graph, site, side, name)[0])
        name = graph.node("MatMul", *names)
        shape = tuple(out.shape)
        ends = [len(sides[0][1])]  # of the batch, and of the free axes of either side
        ends += [ends[0] + len(sides[0][2]), len(shape)]
        first, second = (list(range(*ends[i : i + 2])) for i in range(2))
        if turned[0] is not pairs[0]:
            first, second = second, first
        order = (*range(ends[0]), *first, *second)
        if any(len(free) != 1 for _, _, free in sides):
            name = graph.reshape(name, tuple(shape[axis] for axis in order))
        return Tensor(name, shape, np.dtype(out.dtype), order)

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
            blocks=None,
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


def _wanted(i: int, summed: Any, batch: Any, free: Any) -> tuple[int, ...]:
    """Returns the order in which MatMul takes its first or second operand."""
    return (*batch, *free, *summed) if i == 0 else (*batch, *summed, *free)


def _moved(operands: Any) -> int:
    """Returns how much is to be moved for a product of operands in this order.

    Where the last axis moves, it is element by element, which takes several times as
    long as row by row.
    """
    cost = 0
    for i, (x, axes, _) in enumerate(operands):
        wanted = _wanted(i, *axes)
        if isinstance(x, Tensor) and x.order != wanted:
            cost += 1 if x.order[-1] == wanted[-1] else 3
    return cost


def _free(x: Value, summed: Any, batch: Any) -> list[int]:
    return [i for i in range(len(x.shape)) if i not in (*summed, *batch)]


def _shape(x: Value, axes: Any) -> Shape:
    return tuple(x.shape[i] for i in axes)


def _length(x: Value, axes: Any) -> Any:
    return math.prod(_shape(x, axes))
