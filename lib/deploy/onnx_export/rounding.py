"""Values on grids: QuantizeLinear and DequantizeLinear, exact for grids of 2 to 8 bits.

The runtime's codes are uint8 and saturate at 0 and 255. A grid of fewer codes is moved
so that its smallest is 0, and a Min of whole numbers cuts off what is beyond its
largest: the runtime joins contractions across that Min.
"""

from typing import Any, NamedTuple

import numpy as np

from lib import numerics
from lib.deploy.onnx_export.graph import Graph, Node
from lib.deploy.onnx_export.values import Tensor, Value

_MOST = 255  # of uint8

# What has no negative values, and what keeps that.
_POSITIVE = ("Relu", "Clip", "Sigmoid", "Softmax")  # a Clip is a relu6
_KEEPS = ("MaxPool", "Transpose", "Reshape")


class Affine(NamedTuple):
    """`x ~ (code - zero_point) * scale` with codes from 0 to `most`."""

    scale: np.ndarray  # float32 scalar
    zero_point: np.ndarray  # uint8 scalar
    most: int = _MOST

    def above(self) -> "Affine":
        """Returns the half of the grid from zero on."""
        zero = np.zeros_like(self.zero_point)
        return self._replace(zero_point=zero, most=self.most - int(self.zero_point))


class Dynamic(NamedTuple):
    """A grid of 256 codes over the values of each call, zero among them."""


def affine(grid: numerics.Grid) -> Affine:
    """Returns a grid of whole codes, scalars all, as uint8 has it."""
    low, high, zero = (int(x) for x in (grid.low, grid.high, grid.zero_point))
    scale = np.asarray(grid.scale, np.float32).reshape(())
    return Affine(scale, np.asarray(zero - low, np.uint8), high - low)


def point(
    graph: Graph, name: str, grid: Affine | Dynamic
) -> tuple[str, Affine | Dynamic]:
    """Returns the name of a value rounded onto a grid, and the grid that was used."""
    if isinstance(grid, Dynamic):
        found = graph.nodes_of(
            "DynamicQuantizeLinear", name, further=("_scale", "_zero_point")
        )
        return graph.node("DequantizeLinear", *found), grid
    if grid.zero_point and _positive(graph, name):
        # Zero is the smallest code then, and a relu before it costs nothing.
        grid = grid.above()
    name = _unclipped(graph, name, grid)
    s, z = graph.array(grid.scale), graph.array(grid.zero_point)
    return graph.node("DequantizeLinear", _codes(graph, name, grid), s, z), grid


def _unclipped(graph: Graph, name: str, grid: Affine) -> str:
    """Returns the input of a relu6 that clips no more than the grid does."""
    node = graph.nodes.get(name)
    if node is None or node.op != "Clip" or grid.zero_point:
        return name
    most = graph.arrays[node.inputs[2]].item()
    return node.inputs[0] if most >= (grid.most - 0.5) * grid.scale else name


def _codes(graph: Graph, name: str, grid: Affine) -> str:
    """Returns the name of the codes of a value.

    Of a slice, or of a value with zeros around it, they are those of the codes: then
    whoever rounds the whole value before shares the operator.
    """
    s, z = graph.array(grid.scale), graph.array(grid.zero_point)
    moves, whole = [], name
    while (node := graph.nodes.get(whole)) is not None and _part(graph, node):
        moves.append(node)
        whole = node.inputs[0]
    if moves and graph.has("QuantizeLinear", whole, s, z):
        codes = _codes(graph, whole, grid)
        for node in reversed(moves):
            fill = (z,) if node.op == "Pad" else node.inputs[2:3]
            rest = (node.inputs[1], *fill, *node.inputs[3:])
            codes = graph.node(node.op, codes, *rest)
        return codes
    codes = graph.node("QuantizeLinear", name, s, z)
    if grid.most < _MOST:
        codes = graph.node("Min", codes, graph.array(grid.most, np.uint8))
    return codes


def _positive(graph: Graph, name: str) -> bool:
    node = graph.nodes.get(name)
    while node is not None and (node.op in _KEEPS or _part(graph, node)):
        node = graph.nodes.get(node.inputs[0])
    return node is not None and node.op in _POSITIVE


def _part(graph: Graph, node: Node) -> bool:
    """Returns whether a node takes a part of a value, or sets zeros around it."""
    if node.op == "Pad":
        return not graph.arrays[node.inputs[2]].any()
    return node.op == "Slice"


def fake_quant(
    graph: Graph, params: dict[str, Any], values: list[Value], out: Any
) -> Value:
    """A point that the program holds itself, in floats as `numerics.fake_quant` has it.

    A Q/DQ pair would let the runtime round the weight behind it in its own way.
    """
    x, *parts = [graph.force(v) for v in values]
    whole = isinstance(x, Tensor) and x.order
    order = whole or tuple(range(len(out.shape)))
    name = graph.stored(x, order)
    scale, zero, low, high = (graph.stored(p, order if p.shape else ()) for p in parts)
    wide = np.dtype(out.dtype) == np.float32
    if not wide:
        name = graph.node("Cast", name, to=graph.kind(np.float32))
    name = graph.node("Mul", name, graph.node("Reciprocal", scale))
    name = graph.node("Max", graph.node("Round", name), graph.node("Sub", low, zero))
    name = graph.node("Min", name, graph.node("Sub", high, zero))
    name = graph.node("Mul", name, scale)
    if not wide:
        name = graph.node("Cast", name, to=graph.kind(out.dtype))
    return Tensor(name, tuple(out.shape), np.dtype(out.dtype), order)


RULES = {"fake_quant": fake_quant}
