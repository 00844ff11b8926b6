"""Residual branches, each with the leaves that it alone reads, to be dropped whole.

`x + branch(x)` is `x` where all weights of the branch are 0, if those zeros reach its
end. Found in the traced program: a sum of two activations of which one reaches it
without weights of its own.
"""

import os.path
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lib import errors, tree
from lib.program.preserving.graph import Graph, graph
from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.plan import Plan
from lib.shrink.units import Units
from lib.shrink.walker import RULES


class Branch(NamedTuple):
    """A residual branch.

    Attributes:
      name: what its leaves' paths begin with, less the collection: `block_1_0`; `#1`
        for a further branch of that name.
      leaves: paths of the weights that nothing else reads.
    """

    name: str
    leaves: tuple[str, ...]


def branches(f: Callable[..., Any]) -> Callable[..., list[Branch]]:
    """Returns a function of f's arguments that lists the branches that can be dropped.

    In program order. Branches inside of a scan, while or cond are not among them: all
    turns of a loop have one program. Nor are those whose end is not 0 when their leaves
    are. Nothing is computed.

    Args:
      f: pure, `f(weights, *args)`; `weights` is a nested dict.
    """

    def find(weights: Any, *args: Any) -> list[Branch]:
        g = graph(f)(weights, *args)
        named, seen = [], {}
        for leaves in _branches(g):
            name = _name(leaves)
            seen[name] = seen.get(name, -1) + 1
            number = f"#{seen[name]}" if seen[name] else ""
            named.append(Branch(f"{name}{number}", leaves))
        return named

    return find


def drop(chosen: Sequence[Branch], weights: Any) -> Plan:
    """Returns the plan that drops the leaves of branches.

    Raises:
      UserError: the weights lack one of them.
    """
    flat = tree.flatten(weights)
    dropped = {}
    for path in (path for branch in chosen for path in branch.leaves):
        leaf = errors.lookup(flat, path, "leaf")
        dropped[path] = (tuple(np.shape(leaf)), str(np.dtype(leaf.dtype)))
    return Plan((), dropped)


def _branches(g: Graph) -> list[tuple[str, ...]]:
    above = _ancestors(g)
    found = []
    for node in g.nodes:
        if node.kind != "add" or not all(v in g.data for v in node.ins):
            continue
        left, right = node.ins
        if g.shapes[left].shape != g.shapes[right].shape:
            continue
        for stream, branch in ((left, right), (right, left)):
            mine = above.get(branch, 0) & ~above.get(stream, 0)
            own = [above.get(t, 0) & ~above.get(branch, 0) for t in _terms(g, stream)]
            if _weighed(g, mine) and not all(_weighed(g, bits) for bits in own):
                leaves = _alone(g, mine)
                if _vanishes(g, mine, leaves, branch):
                    found.append(leaves)
    return found


def _ancestors(g: Graph) -> dict[int, int]:
    """Returns the nodes that each value depends on, as bits of an int."""
    above: dict[int, int] = {}
    for i, node in enumerate(g.nodes):
        bits = 1 << i
        for value in node.ins:
            bits |= above.get(value, 0)
        above.update(dict.fromkeys(node.outs, bits))
    return above


def _terms(g: Graph, value: int) -> list[int]:
    """Returns what a value is the sum of: of several branches beside one another."""
    node = g.nodes[g.maker[value]] if value in g.maker else None
    if node is None or node.kind != "add" or not all(v in g.data for v in node.ins):
        return [value]
    return [term for side in node.ins for term in _terms(g, side)]


def _numbers(g: Graph, bits: int) -> list[int]:
    return [i for i in range(len(g.nodes)) if bits >> i & 1]


def _weighed(g: Graph, bits: int) -> bool:
    """Returns whether some of these nodes are contractions with a weight."""
    nodes = (g.nodes[i] for i in _numbers(g, bits))
    return any(n.site and g.weighed(n) is not None for n in nodes)


def _alone(g: Graph, bits: int) -> tuple[str, ...]:
    """Returns the leaves that nothing but these nodes reads."""
    inside = set(_numbers(g, bits))
    return tuple(
        path
        for value, path in g.paths.items()
        if g.readers.get(value) and set(g.readers[value]) <= inside
    )


def _vanishes(g: Graph, bits: int, leaves: Sequence[str], end: int) -> bool:
    """Returns whether a value is known to be 0 where these leaves are."""
    units = Units()
    held: dict[int, Held] = {}

    def known(value: int) -> Held:
        if value not in held:
            if value in g.constants:
                held[value] = holds.constant(units, g.constants[value])
            else:
                zero = g.paths.get(value) in leaves
                one = holds.free(units, g.shapes[value].shape, fades=zero)
                held[value] = one._replace(zero=zero)
        return held[value]

    for i in _numbers(g, bits):
        node = g.nodes[i]
        if node.kind in RULES:
            outs = RULES[node.kind](units, node.eqn, [known(v) for v in node.ins])
            held.update(zip(node.outs, map(holds.settled, outs), strict=True))
    return known(end).zero


def _name(leaves: Sequence[str]) -> str:
    """Returns the modules that all leaves are in, or else the first leaf's."""
    inside = ["/".join(path.split("/")[1:]) for path in leaves if path[:7] == "params/"]
    inside = inside or list(leaves)
    common = os.path.commonpath(inside)
    return common or os.path.dirname(inside[0]) or inside[0]
