"""Rows of a table, gathered where the data says: the lookup of an embedding."""

from typing import Any

import numpy as np

from lib.deploy.onnx_export import windows
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Const, Value, tensor


def gathered(
    graph: Graph, params: dict[str, Any], values: list[Value], out: Any
) -> Value:
    """A gather: rows of a table, or the slices that `windows` knows.

    A table made of int8 codes stays one, and its rows are dequantized once they are
    gathered. Places beyond the table are an error of the runtime, where JAX clips them
    or gives NaN.
    """
    table, places = values
    if isinstance(places, Const) or not _rows(table, params, out):
        return windows.gathered(graph, params, values, out)
    axis = graph.array([-1], np.int64)
    index = graph.node("Squeeze", graph.plain(places), axis)
    made = table.codes if isinstance(table, Const) else None
    if made is None or any(n != 1 for n in made.scale.shape[:-1]):
        name = graph.node("Gather", graph.plain(table), index, axis=0)
        return tensor(name, out.shape, out.dtype)
    scale = made.scale.reshape(-1)
    how = {"axis": len(out.shape) - 1} if scale.size > 1 else {}
    scale = scale if how else scale.reshape(())
    name = graph.node("Gather", graph.array(made.codes), index, axis=0)
    zero = graph.array(np.zeros(scale.shape, np.int8))
    name = graph.node("DequantizeLinear", name, graph.array(scale), zero, **how)
    return tensor(name, out.shape, out.dtype)


def _rows(table: Value, params: dict[str, Any], out: Any) -> bool:
    """Returns whether a gather takes whole rows along the first axis."""
    dims, sizes = params["dimension_numbers"], tuple(params["slice_sizes"])
    row = len(table.shape) - 1
    return (
        not dims.operand_batching_dims
        and dims.collapsed_slice_dims == dims.start_index_map == (0,)
        and sizes == (1, *table.shape[1:])
        and dims.offset_dims == tuple(range(len(out.shape) - row, len(out.shape)))
        and np.dtype(out.dtype) == table.dtype
    )


RULES = {"gather": gathered}
