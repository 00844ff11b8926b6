"""Operands of one node, brought to one order of axes and to lengths that run fast."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Const, Shape, Tensor, Value

# The runtime calls a kernel for each run along which both operands lie in memory alike.
# Of so few elements it is worth repeating, until there are so many.
_FEW, _RUN = 3, 64


def emit(
    graph: Graph, out: Any, values: list[Value], build: Callable[..., str]
) -> Tensor:
    """Returns what `build(*names)` adds to the graph, with axes as they are stored.

    Args:
      graph: to add to.
      out: shape and dtype of the result.
      values: operands of the result's rank, or scalars; not all of them known.
      build: takes names of tensors that are stored alike and returns one.
    """
    values = [graph.force(v) for v in values]
    rank = len(out.shape)
    full = [v for v in values if isinstance(v, Tensor) and len(v.shape) == rank]
    whole = [v for v in full if v.shape == out.shape]
    order = next((v.order for v in whole + full), tuple(range(rank)))
    lengths = [v.array.shape if isinstance(v, Const) else v.shape for v in values]
    lengths = [shape for shape in lengths if len(shape) == rank]
    reached = all(
        any(s[axis] == n for s in lengths) for axis, n in enumerate(out.shape)
    )
    if whole:
        values = [_spread(v, out.shape, order) for v in values]
    name = build(
        *(graph.stored(v, order if len(v.shape) == rank else ()) for v in values)
    )
    if not reached:  # operands that are repeated, and none has the length
        name = graph.expand(name, tuple(out.shape[axis] for axis in order))
    return Tensor(name, tuple(out.shape), np.dtype(out.dtype), order)


def _spread(value: Value, shape: Shape, order: tuple[int, ...]) -> Value:
    """Returns a constant for each colour of a pixel, repeated along the pixels.

    Runs of three take ten times as long as longer ones.
    """
    if not isinstance(value, Const) or not shape or value.array.ndim != len(shape):
        return value
    array, run = value.array, value.array.shape[order[-1]]
    if not 1 < run <= _FEW or run != shape[order[-1]]:
        return value
    for axis in reversed(order[:-1]):
        n = shape[axis]
        if run >= _RUN or not isinstance(n, int):
            break
        array = array if array.shape[axis] == n else np.repeat(array, n, axis)
        run *= n
    return value._replace(array=array)
