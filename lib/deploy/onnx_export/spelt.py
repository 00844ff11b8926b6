"""Contractions of integers whose result stays in float, in other words.

The runtime has integer kernels for DequantizeLinear, contraction, QuantizeLinear. Where
nothing rounds the result, some contractions would fall back to float.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lib.deploy.onnx_export.graph import Graph, Node

# What the runtime carries quantized values through, so that what is behind it is what
# rounds the result of a convolution.
_THROUGH = ("Relu", "Clip", "MaxPool", "Transpose", "Reshape")

# What the runtime joins to a Gemm before it looks for integers.
_ACTIVATIONS = {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "HardSigmoid"}


def spell(graph: Graph, outputs: Collection[str]) -> None:
    """Rewrites what would run in float because its result is not rounded.

    A convolution has no integer kernel with a result in float, and ConvInteger takes
    three times the time of a Conv of floats: it becomes a matrix product of shifted
    slices. One in groups runs in float, and gets weights in float, which are not
    dequantized at each call then. A Gemm that an activation follows, or whose input has
    a dynamic range, becomes a MatMul of three axes, which the runtime leaves as it is.

    Args:
      graph: all of it.
      outputs: names of what it gives.
    """
    before, graph.nodes = graph.nodes, {}
    users: dict[str, list[str]] = {}
    for out, node in before.items():
        for name in node.inputs:
            users.setdefault(name, []).append(out)

    def is_rounded(name: str, relu: bool = False) -> bool:
        # A relu is part of the rounding only where 0 is the smallest code.
        if name in outputs:
            return False
        for out in users.get(name, ()):
            node = before[out]
            if node.op == "QuantizeLinear":
                fits = not relu or graph.arrays[node.inputs[2]] == 0
            else:
                below = relu or node.op in ("Relu", "Clip")
                fits = node.op in _THROUGH and is_rounded(out, below)
            if not fits:
                return False
        return name in users

    def dequantized(name: str) -> bool:
        return name in before and before[name].op == "DequantizeLinear"

    for out, node in before.items():
        whole = node.op in ("Conv", "Gemm") and dequantized(node.inputs[0])
        if whole and not is_rounded(out):
            graph.scope = out.rpartition("/")[0]
            if node.op == "Conv":
                node = _conv(graph, before, node)
            elif _dynamic(before, node) or _ACTIVATIONS & {
                before[user].op for user in users.get(out, ())
            }:
                node = _gemm(graph, before, node)
        graph.nodes[out] = node


def _dynamic(nodes: Mapping[str, Node], node: Node) -> bool:
    """Returns whether the input of a node has a range of its own at each call."""
    codes = nodes[node.inputs[0]].inputs[0]
    return codes in nodes and nodes[codes].op == "DynamicQuantizeLinear"


def _gemm(graph: Graph, nodes: Mapping[str, Node], node: Node) -> Node:
    """Returns the last of the nodes that compute a Gemm; the others are added."""
    axis = graph.array([0], np.int64)
    codes, *grid = nodes[node.inputs[0]].inputs
    x = graph.node("Unsqueeze", codes, axis)
    y = graph.node("MatMul", graph.node("DequantizeLinear", x, *grid), node.inputs[1])
    if len(node.inputs) == 3:
        y = graph.node("Add", y, graph.array(_bias(graph, nodes, node)))
    return Node("Squeeze", (y, axis), ())


def _bias(graph: Graph, nodes: Mapping[str, Node], node: Node) -> np.ndarray:
    """Returns the bias of a node of integers, in float32."""
    if node.inputs[2] in graph.arrays:
        return graph.arrays[node.inputs[2]]
    b, s, _ = nodes[node.inputs[2]].inputs
    return (graph.arrays[b] * graph.arrays[s].astype(np.float64)).astype(np.float32)


def _conv(graph: Graph, nodes: Mapping[str, Node], node: Node) -> Node:
    """Returns the last of the nodes that compute a Conv; the others are added."""
    x, s_x, z_x = nodes[node.inputs[0]].inputs
    w, s_w, z_w = nodes[node.inputs[1]].inputs
    how = dict(node.attributes)
    codes = graph.arrays[w]
    if how["group"] > 1:
        lengths = (-1, *(1 for _ in codes.shape[1:]))
        arrays = [codes * graph.arrays[s_w].reshape(lengths)]
        if len(node.inputs) == 3:
            arrays.append(_bias(graph, nodes, node))
        return node._replace(inputs=(node.inputs[0], *map(graph.array, arrays)))
    axes = list(range(2, codes.ndim))
    taps = _taps(graph, graph.node("Transpose", x, perm=[0, *axes, 1]), z_x, how)
    rows = graph.node("Concat", *taps, axis=-1) if len(taps) > 1 else taps[0]
    matrix = codes.transpose(*axes, 1, 0).reshape(-1, len(codes))
    rows = graph.node("DequantizeLinear", rows, s_x, z_x)
    matrix = graph.node("DequantizeLinear", graph.array(matrix), s_w, z_w, axis=1)
    y = graph.node("MatMul", rows, matrix)
    if len(node.inputs) == 3:
        y = graph.node("Add", y, graph.array(_bias(graph, nodes, node)))
    last = codes.ndim - 1
    return Node("Transpose", (y,), (("perm", (0, last, *range(1, last))),))


def _taps(graph: Graph, x: str, zero: str, how: dict[str, Any]) -> list[str]:
    """Returns the names of what each tap of a window sees, channels last."""
    rank = len(how["kernel_shape"])
    pads = [0, *how["pads"][:rank], 0, 0, *how["pads"][rank:], 0]
    if any(pads):
        x = graph.node("Pad", x, graph.array(pads, np.int64), zero)
    if how["kernel_shape"] == (1,) * rank == how["strides"]:
        return [x]
    taps = []
    for tap in np.ndindex(*how["kernel_shape"]):
        rows = zip(tap, how["kernel_shape"], how["dilations"], strict=True)
        ends = [(t * d, (t + 1 - k) * d or 2**31) for t, k, d in rows]
        columns = (*zip(*ends, strict=True), range(1, rank + 1), how["strides"])
        arrays = [graph.array(list(column), np.int64) for column in columns]
        taps.append(graph.node("Slice", x, *arrays))
    return taps
