"""Strided slices, and the maxima of them that are a pooling.

`max(x[:, ::2], x[:, 1::2])` are slices as far as JAX knows. Kept as windows over one
source until something else uses them, they turn out to be one MaxPool.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Const, Shape, Tensor, Value, tensor

Params = dict[str, Any]
_POOLED = ("float32", "float64", "float16", "int8", "uint8")


class Windows(NamedTuple):
    """The maximum of one or more strided slices of a tensor.

    Attributes:
      source: what is sliced.
      starts: for each slice, where it starts on each axis.
      strides: of all the slices, on each axis.
      shape: of each slice, and of the maximum.
    """

    source: Tensor
    starts: frozenset[tuple[int, ...]]
    strides: tuple[int, ...]
    shape: Shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the elements."""
        return self.source.dtype

    def joined(self, other: "Windows") -> "Windows | None":
        """Returns the maximum of both, None if their slices are of other things."""
        if self._replace(starts=other.starts) != other:
            return None
        return self._replace(starts=self.starts | other.starts)

    def force(self, graph: Graph) -> Tensor:
        """Returns the tensor: a Slice, a MaxPool, or the Max of several Slices."""
        slices = sorted(self.starts)
        pooled = self._pool(graph) if len(slices) > 1 else None
        if pooled is not None:
            return pooled
        source, order = self.source, self.source.order
        names = [
            cut(graph, source, start, self.strides, self.shape) for start in slices
        ]
        name = names[0] if len(names) == 1 else graph.node("Max", *names)
        return Tensor(name, self.shape, self.dtype, order)

    def _pool(self, graph: Graph) -> Tensor | None:
        """Returns the MaxPool of a full rectangle of slices, None for anything else."""
        along = list(zip(*self.starts, strict=True))
        least, most = [min(s) for s in along], [max(s) for s in along]
        kernel = [high - low + 1 for low, high in zip(least, most, strict=True)]
        axes = [
            i for i, k in enumerate(kernel) if k > 1 or self.strides[i] > 1 or least[i]
        ]
        rest = [i for i in range(len(kernel)) if i not in axes]
        if math.prod(kernel) != len(self.starts) or len(rest) < 2:
            return None
        axes, order = _images(rest, axes)
        whole = all(isinstance(self.source.shape[i], int) for i in axes)
        if self.dtype.name not in _POOLED or len(axes) > 3 or not whole:
            return None
        source = self.source
        need = [
            (self.shape[i] - 1) * self.strides[i] + kernel[i] if i in axes else n
            for i, n in enumerate(source.shape)
        ]
        for i in axes:
            pooled = (source.shape[i] - kernel[i]) // self.strides[i] + 1
            if least[i] or pooled != self.shape[i]:
                ones = (1,) * len(need)
                name = cut(graph, source, tuple(least), ones, tuple(need))
                source = source._replace(name=name, shape=tuple(need))
                break
        name = graph.node(
            "MaxPool",
            graph.stored(source, order),
            kernel_shape=[kernel[i] for i in axes],
            strides=[self.strides[i] for i in axes],
        )
        return Tensor(name, self.shape, self.dtype, order)


def _images(rest: list[int], used: list[int]) -> tuple[list[int], tuple[int, ...]]:
    """Returns the axes to pool over and the order of all: batch, channels, those.

    Args:
      rest: axes that are not pooled: batch, channels, and windows of one between them.
      used: the others.
    """
    axes = sorted([*used, *rest[1:-1]])
    return axes, (rest[0], rest[-1], *axes)


def cut(
    graph: Graph,
    source: Tensor,
    start: tuple[int, ...],
    strides: tuple[int, ...],
    shape: Shape,
) -> str:
    """Returns the name of a strided slice, its axes stored as those of the source."""
    rows = []
    for axis, (first, stride, n) in enumerate(zip(start, strides, shape, strict=True)):
        if (first, stride, n) == (0, 1, source.shape[axis]):
            continue
        if not isinstance(n, int):
            raise graph.fail("a slice cuts the batch", "take all examples")
        rows.append(
            (source.order.index(axis), first, first + (n - 1) * stride + 1, stride)
        )
    if not rows:
        return source.name
    axes, starts, ends, steps = (
        graph.array(x, np.int64) for x in zip(*rows, strict=True)
    )
    return graph.node("Slice", source.name, starts, ends, axes, steps)


def sliced(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """A strided slice; of a slice, it is one of the first one's source."""
    return _slice(
        graph,
        values[0],
        tuple(params["start_indices"]),
        tuple(params["strides"] or (1,) * len(out.shape)),
        tuple(out.shape),
    )


def _slice(graph: Graph, x: Value, start, strides, shape) -> Windows:
    if isinstance(x, Windows) and len(x.starts) == 1:
        (before,) = x.starts
        start = tuple(
            b + s * a for b, s, a in zip(before, x.strides, start, strict=True)
        )
        strides = tuple(s * t for s, t in zip(x.strides, strides, strict=True))
        return Windows(x.source, frozenset([start]), strides, shape)
    return Windows(graph.force(x), frozenset([start]), strides, shape)


def split(graph: Graph, params: Params, values: list[Value], out: Any) -> list[Value]:
    """Slices that lie side by side along one axis."""
    x, axis = values[0], params["axis"]
    found, offset, ones = [], 0, (1,) * len(x.shape)
    for size in map(int, params["sizes"]):
        start = tuple(offset if i == axis else 0 for i in range(len(x.shape)))
        shape = tuple(size if i == axis else n for i, n in enumerate(x.shape))
        found.append(_slice(graph, x, start, ones, shape))
        offset += size
    return found


def gathered(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """A gather at known places on a regular grid.

    It is what `x[:, 1:, ::2]` is traced to where the batch has no fixed length.
    """
    x, places = values
    known = isinstance(places, Const) and not isinstance(x, Const)
    found = None
    if known:
        at = np.broadcast_to(places.array, places.shape)
        found = _regular(x.shape, at, params)
    if found is None:
        raise graph.fail(
            "gather is at places that are no regular grid or depend on data",
            "index with slices, or take whole rows of the first axis",
        )
    rows, dropped = found
    start, strides, shape = (tuple(column) for column in zip(*rows, strict=True))
    windows = _slice(graph, x, start, strides, shape)
    if tuple(n for i, n in enumerate(shape) if i not in dropped) != tuple(out.shape):
        raise graph.fail("gather moves axes", "index one axis at a time")
    if not dropped:
        return windows
    axes = graph.array(dropped, np.int64)
    name = graph.node("Squeeze", graph.plain(windows), axes)
    return tensor(name, out.shape, x.dtype)


def _regular(
    shape: Shape, places: np.ndarray, params: Params
) -> tuple[list[tuple[int, int, Any]], list[int]] | None:
    """Returns a gather as (start, stride, count) of each axis, and the axes it drops.

    Returns None where it is no such thing.
    """
    dims, sizes = params["dimension_numbers"], params["slice_sizes"]
    if dims.operand_batching_dims:
        return None
    rows = [(0, 1, n) for n in sizes]
    collapsed, dropped = list(dims.collapsed_slice_dims), []
    grid = list(places.shape[:-1])  # one axis for each collapsed one that is kept
    fixed = [
        axis
        for k, axis in enumerate(dims.start_index_map)
        if axis in collapsed and (places[..., k] == places[..., k].flat[0]).all()
    ]
    while len(collapsed) > len(grid) and fixed:
        dropped.append(fixed.pop(0))
        collapsed.remove(dropped[-1])
    if len(collapsed) != len(grid):
        return None
    for k, axis in enumerate(dims.start_index_map):
        index = places[..., k].astype(np.int64)
        if axis in collapsed:
            g = collapsed.index(axis)
            index = np.moveaxis(index, g, 0).reshape(grid[g], -1)
            line = index[:, 0]
            steps = set(np.diff(line).tolist()) or {1}
        else:
            index = index.reshape(1, -1)
            line, steps = index[:, 0], {1}
        step, size = min(steps), sizes[axis]
        last = line[-1] + (size - 1 if isinstance(size, int) else 0)
        within = isinstance(shape[axis], int) and 0 <= line[0] and last < shape[axis]
        if (index != line[:, None]).any() or len(steps) > 1 or step < 1 or not within:
            return None
        rows[axis] = (int(line[0]), step, grid[g] if axis in collapsed else size)
    untouched = [i for i in range(len(shape)) if i not in dims.start_index_map]
    return (rows, dropped) if all(sizes[i] == shape[i] for i in untouched) else None


def max_window(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """`reduce_window_max`, Flax's `nn.max_pool`."""
    return _reduce_window(graph, params, values, out, "MaxPool")


def sum_window(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """`reduce_window_sum`, what Flax's `nn.avg_pool` divides."""
    found = _reduce_window(
        graph, params, values, out, "AveragePool", count_include_pad=1
    )
    count = graph.array(math.prod(params["window_dimensions"]), out.dtype)
    return found._replace(name=graph.node("Mul", found.name, count))


def _reduce_window(graph, params, values, out, op, **attributes) -> Tensor:
    window, strides = params["window_dimensions"], params["window_strides"]
    padding = params["padding"]
    dilated = any(
        d != 1 for d in (*params["base_dilation"], *params["window_dilation"])
    )
    used = [
        i
        for i, (k, s, pad) in enumerate(zip(window, strides, padding, strict=True))
        if k > 1 or s > 1 or any(pad)
    ]
    rest = [i for i in range(len(window)) if i not in used]
    floating = np.dtype(out.dtype).kind == "f"
    if dilated or len(rest) < 2 or len(window) not in (3, 4, 5) or not floating:
        raise graph.fail(
            "a window is dilated or goes over batch and channels",
            "pool over one to three axes of images",
        )
    axes, order = _images(rest, used)
    pads = [padding[i] for i in axes]
    name = graph.node(
        op,
        graph.stored(values[0], order),
        kernel_shape=[window[i] for i in axes],
        strides=[strides[i] for i in axes],
        pads=[*(low for low, _ in pads), *(high for _, high in pads)],
        **attributes,
    )
    return Tensor(name, tuple(out.shape), np.dtype(out.dtype), order)


RULES: dict[str, Callable[..., Any]] = {
    "gather": gathered,
    "reduce_window_max": max_window,
    "reduce_window_sum": sum_window,
    "slice": sliced,
    "split": split,
}
