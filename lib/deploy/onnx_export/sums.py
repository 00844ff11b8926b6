"""Residual additions with rounded operands -> what the runtime makes QLinearAdd of."""

from typing import Any

from lib.deploy.onnx_export import aligned, elementwise, integers
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Value
from lib.program import Site
from lib.program.sites import SIDES


def add(
    graph: Graph, plan: integers.Plan, site: Site, values: list[Value], out: Any
) -> Value:
    """Returns the sum of two values, each behind its Q/DQ pair where it is rounded.

    The runtime adds in integers where the sum, or the relu of it, is rounded again.
    """
    graph.scope = site.name  # the node is found by it
    if not any((site.name, side) in plan.grids for side in SIDES):
        return elementwise.RULES["add"](graph, {}, values, out)

    def build(*names: str) -> str:
        points = [
            plan.rounded(graph, site, side, name)[0]
            for side, name in zip(SIDES, names, strict=True)
        ]
        return graph.node("Add", *points)

    return aligned.emit(graph, out, values, build)
