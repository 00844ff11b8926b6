"""Sums over the places of images, which are means once they are divided.

The runtime has a kernel for the mean of all places, in integers too where its operand
and its result are rounded.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export import integers
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Const, Shape, Tensor, Value
from lib.program import Site


class PlaceSum(NamedTuple):
    """The sum of a tensor over all of its stored axes but the first two.

    Attributes:
      source: `[batch, channels, place, ...]` as it is stored.
      shape: of the sum, as the program has it.
      order: of the sum.
      scope: of its equation; nodes are named by it.
    """

    source: Tensor
    shape: Shape
    order: tuple[int, ...]
    scope: str

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the elements."""
        return self.source.dtype

    def force(self, graph: Graph) -> Tensor:
        """Returns the sum."""
        name = graph.node("ReduceSum", self.source.name, self._axes(graph), keepdims=0)
        return Tensor(name, self.shape, self.dtype, self.order)

    def divided(self, graph: Graph, by: Value) -> Tensor | None:
        """Returns the mean, where `by` is the number of places; None where not."""
        count = math.prod(self.source.shape[i] for i in self.source.order[2:])
        number = isinstance(by, Const) and by.array.size == 1
        if not number or by.array.item() != count or by.array.ndim > len(self.shape):
            return None
        scope, graph.scope = graph.scope, self.scope
        name = graph.node("GlobalAveragePool", self.source.name)
        name = graph.node("Squeeze", name, self._axes(graph))
        graph.scope = scope
        return Tensor(name, self.shape, self.dtype, self.order)

    def _axes(self, graph: Graph) -> str:
        return graph.array(range(2, len(self.source.shape)), np.int64)


def place_sum(graph: Graph, x: Tensor, stored: list[int], out: Any) -> PlaceSum | None:
    """Returns the sum over these stored axes, None if they are others than places."""
    lengths = [x.shape[axis] for axis in x.order[2:]]
    # Channels come before places where a convolution has stored them so; stored as the
    # program has them, the last axis is that of a layer norm.
    turned = x.order != tuple(range(len(x.order)))
    places = turned and stored == list(range(2, len(x.shape))) and bool(stored)
    known = all(isinstance(n, int) for n in lengths)
    if not places or not known or x.dtype != np.float32:
        return None
    rest = sorted(x.order[:2])
    order = tuple(rest.index(axis) for axis in x.order[:2])
    return PlaceSum(x, tuple(out.shape), order, graph.scope)


def rounded(graph: Graph, plan: integers.Plan, site: Site, value: Value) -> Tensor:
    """Returns the operand of a mean, behind its Q/DQ pair where it is rounded."""
    graph.scope = site.name  # nodes are found by it
    x = graph.force(value)
    return x._replace(name=plan.rounded(graph, site, "lhs", x.name)[0])
