"""Primitives that move elements or put them together -> ONNX nodes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export import means
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Const, Shape, Tensor, Value, tensor

Params = dict[str, Any]


class Flat(NamedTuple):
    """A tensor with all axes but the first made one, `[N, rest]`.

    The next matrix may take the elements in the order in which they are stored, with
    its rows in that order too: then nothing is transposed.

    Attributes:
      source: the tensor before, not stored as the program has it.
      shape: after.
    """

    source: Tensor
    shape: Shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the elements."""
        return self.source.dtype

    def force(self, graph: Graph) -> Tensor:
        """Returns it in the program's order."""
        name = graph.reshape(graph.plain(self.source), self.shape)
        return tensor(name, self.shape, self.dtype)

    def flat(self, graph: Graph) -> tuple[str, np.ndarray]:
        """Returns it in the stored order, and where its elements are in the program's.

        Element j of a row is element `rows[j]` as the program counts.
        """
        lengths = self.source.shape[1:]
        rows = np.arange(math.prod(lengths)).reshape(lengths)
        rows = rows.transpose([axis - 1 for axis in self.source.order[1:]])
        return graph.reshape(self.source.name, self.shape), rows.ravel()


def reshape(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Another shape of the same elements."""
    if params["dimensions"] is not None:
        raise graph.fail("reshape reorders axes", "use a transpose")
    x, shape = graph.force(values[0]), tuple(out.shape)
    stored = x.order
    flattens = len(shape) == 2 and shape[0] == x.shape[0] and stored[:1] == (0,)
    if flattens and stored != tuple(range(len(stored))):
        return Flat(x, shape)
    return tensor(graph.reshape(graph.plain(x), shape), shape, x.dtype)


def transpose(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Another order of the axes: nothing moves until someone asks for it."""
    x, permutation = graph.force(values[0]), list(params["permutation"])
    order = tuple(permutation.index(axis) for axis in x.order)
    return Tensor(x.name, tuple(out.shape), x.dtype, order)


def broadcast(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """New axes, and repetition along them or along axes of length 1."""
    x, shape = graph.force(values[0]), tuple(out.shape)
    axes = params["broadcast_dimensions"]
    name = graph.plain(x)
    new = [i for i in range(len(shape)) if i not in axes]
    if new:
        name = graph.node("Unsqueeze", name, graph.array(new, np.int64))
    lengths = [1] * len(shape)
    for axis, n in zip(axes, x.shape, strict=True):
        lengths[axis] = n
    if tuple(lengths) != shape:
        # A length of 1 keeps what is there.
        target = [1 if n == m else m for n, m in zip(lengths, shape, strict=True)]
        name = graph.expand(name, tuple(target))
    return tensor(name, shape, x.dtype)


def squeeze(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Without some axes of length 1."""
    x = graph.force(values[0])
    axes = graph.array(sorted(params["dimensions"]), np.int64)
    name = graph.node("Squeeze", graph.plain(x), axes)
    return tensor(name, out.shape, x.dtype)


def concatenate(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """One behind another, stored as the first one that is not known."""
    values = [graph.force(v) for v in values]
    order = next(v.order for v in values if isinstance(v, Tensor))
    if any(isinstance(v, Const) and v.array.shape != v.shape for v in values):
        order = tuple(range(len(out.shape)))  # as `plain` repeats them
        names = [graph.plain(v) for v in values]
    else:
        names = [graph.stored(v, order) for v in values]
    axis = order.index(params["dimension"])
    name = graph.node("Concat", *names, axis=axis)
    return Tensor(name, tuple(out.shape), np.dtype(out.dtype), order)


def stack(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """One behind another along a new axis."""
    axis = params["axis"]
    new = graph.array([axis], np.int64)
    names = [graph.node("Unsqueeze", graph.plain(v), new) for v in values]
    return tensor(graph.node("Concat", *names, axis=axis), out.shape, out.dtype)


def pad(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """A constant around it."""
    x, fill = values[0], values[1]
    rows = params["padding_config"]
    if any(low < 0 or high < 0 or between for low, high, between in rows):
        raise graph.fail("pad crops or spreads its input", "use slices instead")
    if not isinstance(fill, Const) or isinstance(x, Const):
        raise graph.fail("pad with a value that depends on data", "pad with a number")
    x = graph.force(x)
    pads = [rows[axis][side] for side in (0, 1) for axis in x.order]
    name = graph.node(
        "Pad", x.name, graph.array(pads, np.int64), graph.array(fill.array)
    )
    return Tensor(name, tuple(out.shape), x.dtype, x.order)


def reduced(op: str) -> Callable[..., Value]:
    """Returns the rule of a reduction over `params["axes"]`."""

    def rule(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
        x = graph.force(values[0])
        axes = tuple(params["axes"])
        if not axes:
            return x
        stored = sorted(x.order.index(axis) for axis in axes)
        found = means.place_sum(graph, x, stored, out) if op == "ReduceSum" else None
        if found is not None:
            return found
        name = graph.node(op, x.name, graph.array(stored, np.int64), keepdims=0)
        rest = [axis for axis in x.order if axis not in axes]
        order = tuple(sorted(rest).index(axis) for axis in rest)
        return Tensor(name, tuple(out.shape), np.dtype(out.dtype), order)

    return rule


def argument(op: str) -> Callable[..., Value]:
    """Returns the rule of argmax or argmin; of equal elements the first counts."""

    def rule(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
        (axis,) = params["axes"]
        name = graph.node(op, graph.plain(values[0]), axis=axis, keepdims=0)
        if np.dtype(out.dtype) != np.int64:
            to = graph.kind(out.dtype)
            name = graph.node("Cast", name, to=to)
        return tensor(name, out.shape, out.dtype)

    return rule


RULES: dict[str, Callable[..., Value]] = {
    "argmax": argument("ArgMax"),
    "argmin": argument("ArgMin"),
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "pad": pad,
    "reduce_max": reduced("ReduceMax"),
    "reduce_min": reduced("ReduceMin"),
    "reduce_prod": reduced("ReduceProd"),
    "reduce_sum": reduced("ReduceSum"),
    "reshape": reshape,
    "squeeze": squeeze,
    "stack": stack,
    "transpose": transpose,
}
