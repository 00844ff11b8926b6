"""Softmax, GELU and layer norm, found among the operations that they are made of.

The runtime has a kernel for each, several times as fast as its parts. What is written
in another way than JAX and Flax write it stays in parts, which is as right.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lib.deploy.onnx_export.graph import Graph, Node

# A pattern: the name of a value, the same wherever it stands; a number; or an operator
# with patterns of its inputs. Axes are initialisers, of which equal ones are one.
Pattern = Any
Found = Mapping[str, str]
_EITHER_WAY = ("Add", "Max", "Mul")

_SHIFTED: Pattern = (
    "Exp",
    ("Sub", "x", ("Unsqueeze", ("Max", -np.inf, ("ReduceMax", "x", "axes")), "axes")),
)
SOFTMAX: Pattern = (
    "Div",
    _SHIFTED,
    ("Unsqueeze", ("ReduceSum", _SHIFTED, "axes"), "axes"),
)

_CUBE: Pattern = ("Mul", ("Mul", "x", "x"), "x")
_BENT: Pattern = ("Mul", np.sqrt(2 / np.pi), ("Add", "x", ("Mul", 0.044715, _CUBE)))
GELU: Pattern = ("Mul", "x", ("Mul", 0.5, ("Add", 1.0, ("Tanh", _BENT))))
_TAIL: Pattern = ("Sub", 1.0, ("Erf", ("Mul", ("Neg", "x"), np.sqrt(0.5))))
GELU_OF_ERF: Pattern = ("Mul", ("Mul", 0.5, "x"), _TAIL)

_MEAN: Pattern = ("Div", ("ReduceSum", "x", "axes"), "count")
_SQUARES: Pattern = ("Div", ("ReduceSum", ("Mul", "x", "x"), "axes"), "count")
_VARIANCE: Pattern = ("Relu", ("Sub", _SQUARES, ("Mul", _MEAN, _MEAN)))
_DEVIATION: Pattern = (
    "Sqrt",
    ("Add", ("Unsqueeze", _VARIANCE, "axes"), "epsilon"),
)
LAYER_NORM: Pattern = (
    "Add",
    (
        "Mul",
        ("Sub", "x", ("Unsqueeze", _MEAN, "axes")),
        ("Mul", ("Reciprocal", _DEVIATION), "scale"),
    ),
    "bias",
)


def _softmax(graph: Graph, found: Found) -> Node | None:
    axes = graph.arrays[found["axes"]]
    if axes.size != 1:
        return None
    return Node("Softmax", (found["x"],), (("axis", int(axes[0])),))


def _gelu(graph: Graph, found: Found) -> Node | None:
    return Node("Gelu", (found["x"],), (("approximate", "tanh"),))


def _gelu_of_erf(graph: Graph, found: Found) -> Node | None:
    return Node("Gelu", (found["x"],), ())


def _layer_norm(graph: Graph, found: Found) -> Node | None:
    known = [graph.arrays.get(found[k]) for k in ("scale", "bias", "epsilon", "count")]
    axes = graph.arrays[found["axes"]]
    if any(array is None for array in known):
        return None
    scale, bias, epsilon, count = known
    rank, length = max(scale.ndim, bias.ndim), int(count)
    lines = all(a.size in (1, length) and a.shape[-1:] == (a.size,) for a in known[:2])
    if not lines or axes.tolist() != [rank - 1] or epsilon.size != 1:
        return None
    names = [graph.array(np.broadcast_to(a.ravel(), (length,))) for a in (scale, bias)]
    how = (("axis", -1), ("epsilon", float(epsilon)))
    return Node("LayerNormalization", (found["x"], *names), how)


RULES: list[tuple[Pattern, Callable[[Graph, Found], Node | None]]] = [
    (SOFTMAX, _softmax),
    (GELU, _gelu),
    (GELU_OF_ERF, _gelu_of_erf),
    (LAYER_NORM, _layer_norm),
]


def fuse(graph: Graph) -> None:
    """Replaces the last operation of each pattern; nobody needs the others then."""
    for name in list(graph.nodes):
        for pattern, build in RULES:
            found = _match(graph, pattern, name, {})
            node = None if found is None else build(graph, found)
            if node is not None:
                graph.nodes[name] = node


def _match(graph: Graph, pattern: Pattern, name: str, bound: Found) -> Found | None:
    """Returns the names in `pattern` as they stand for it at `name`, None if not."""
    if isinstance(pattern, str):
        return {**bound, pattern: name} if bound.get(pattern, name) == name else None
    if not isinstance(pattern, tuple):
        array = graph.arrays.get(name)
        same = array is not None and array.size == 1
        return bound if same and np.isclose(array.item(), pattern, 1e-6, 0) else None
    node = graph.nodes.get(name)
    op, *inner = pattern
    if node is None or node.op != op or len(node.inputs) != len(inner):
        return None
    orders = [inner, inner[::-1]] if op in _EITHER_WAY else [inner]
    for order in orders:
        found: Found | None = bound
        for part, inputs in zip(order, node.inputs, strict=True):
            found = None if found is None else _match(graph, part, inputs, found)
        if found is not None:
            return found
    return None
