"""A traced program as one flat list of equations, to be followed both ways.

Jitted functions, remat and custom derivatives are written out in place; a scan, while
or cond stays one equation that is not looked into. What no result needs is left out.
"""

import collections
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lib import tree
from lib.program import flow
from lib.program.sites import CONTRACTIONS, Block, Program, Site, read

RESULT = -1  # the reader that is the program's result


class Node(NamedTuple):
    """One equation.

    Attributes:
      eqn: the equation, for its primitive and parameters.
      ins: numbers of the values it reads.
      outs: numbers of the values it makes.
      scope: where it stands, or the primitive's name where there is no scope.
      site: the contraction that it is, if it is one.
    """

    eqn: core.JaxprEqn
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    scope: str
    site: Site | None

    @property
    def kind(self) -> str:
        """The primitive's name."""
        return self.eqn.primitive.name


class Graph(NamedTuple):
    """A program whose values are numbered.

    Attributes:
      nodes: the equations, in program order.
      shapes: shape and dtype of each value.
      paths: {value: path} of the leaves of the first argument.
      constants: values that are known.
      data: the values that depend on other arguments than the first.
      readers: {value: the nodes that read it, once for each operand}; `RESULT` among
        them stands for the program's result.
      maker: {value: the node that makes it}.
    """

    nodes: list[Node]
    shapes: dict[int, jax.ShapeDtypeStruct]
    paths: dict[int, str]
    constants: dict[int, Any]
    data: set[int]
    readers: dict[int, list[int]]
    maker: dict[int, int]

    def weighed(self, node: Node) -> int | None:
        """Returns which operand, 0 or 1, of a contraction is the weight, if one is."""
        marks = [value in self.data for value in node.ins]
        return None if marks[0] == marks[1] else marks.index(False)

    def is_zero(self, value: int) -> bool:
        """Returns whether a value is known to be all zeros."""
        if value in self.constants:
            return not np.any(np.asarray(self.constants[value]))
        node = self.nodes[self.maker[value]] if value in self.maker else None
        moved = node and node.kind in ("broadcast_in_dim", "convert_element_type")
        return bool(moved) and self.is_zero(node.ins[0])


def graph(f: Callable[..., Any]) -> Callable[..., Graph]:
    """Returns a function of f's arguments that returns f's program as a `Graph`.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.

    Args:
      f: pure, `f(weights, *args)`; `weights` is a nested dict.
    """

    def traced(weights, *args):
        named = [
            jax.tree_util.keystr(place, simple=True, separator="/")
            for place, leaf in jax.tree_util.tree_leaves_with_path(weights)
            if isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
        ]
        program = read(f, (weights, *args), {})
        return _Flattener(program, named).graph()

    return traced


def evaluate(g: Graph, weights: Any, wanted: Iterable[int]) -> dict[int, np.ndarray]:
    """Returns what values that depend on weights alone are, in float64."""
    leaves = tree.flatten(weights)
    known = {value: jnp.asarray(leaves[path]) for value, path in g.paths.items()}
    known.update(g.constants)

    def value(number: int) -> Any:
        if number not in known:
            node = g.nodes[g.maker[number]]
            params = node.eqn.primitive.get_bind_params(node.eqn.params)
            outs = node.eqn.primitive.bind(*map(value, node.ins), **params)
            many = node.eqn.primitive.multiple_results
            known.update(zip(node.outs, outs if many else [outs], strict=True))
        return known[number]

    return {n: np.asarray(jnp.asarray(value(n), jnp.float32), float) for n in wanted}


class _Flattener:
    """Writes a program out, once, in order."""

    def __init__(self, program: Program, named: list[str]) -> None:
        self.nodes: list[Node] = []
        self.shapes: dict[int, jax.ShapeDtypeStruct] = {}
        self.constants: dict[int, Any] = {}
        self.data: set[int] = set()
        args = [self._new(leaf) for leaf in program.leaves]
        self.paths = dict(zip(args, named, strict=False))
        self.data.update(args[len(named) :])
        self.outs = self._block(program.block, args, "")

    def _new(self, aval: Any) -> int:
        number = len(self.shapes)
        self.shapes[number] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return number

    def _constant(self, value: Any) -> int:
        number = self._new(jax.typeof(value))
        self.constants[number] = value
        return number

    def _block(self, block: Block, args: list[int], place: str) -> list[int]:
        env = dict(zip(block.jaxpr.invars, args, strict=True))
        for var, const in zip(block.jaxpr.constvars, block.consts, strict=True):
            env[var] = self._constant(const)

        def number(atom: Any) -> int:
            if isinstance(atom, core.Literal):
                return self._constant(atom.val)
            return env[atom]

        for i, eqn in enumerate(block.jaxpr.eqns):
            ins = [number(atom) for atom in eqn.invars]
            step = block.steps.get(i)
            own = str(eqn.source_info.name_stack)
            scope = "/".join(part for part in (place, own) if part)
            if eqn.primitive.name in flow.CALLS and not isinstance(step, Site):
                inner = step[0] if step else _inside(eqn)
                if inner is not None:
                    outs = self._block(inner, ins, scope)
                    env.update(zip(eqn.outvars, outs, strict=True))
                    continue
            outs = [self._new(var.aval) for var in eqn.outvars]
            env.update(zip(eqn.outvars, outs, strict=True))
            if eqn.effects or any(n in self.data for n in ins):
                self.data.update(outs)
            site = step if isinstance(step, Site) else None
            name = site.name if site else scope or eqn.primitive.name
            self.nodes.append(Node(eqn, tuple(ins), tuple(outs), name, site))
        return [number(atom) for atom in block.jaxpr.outvars]

    def graph(self) -> Graph:
        """Returns the live part."""
        live, kept = set(self.outs), []
        for node in reversed(self.nodes):
            if live.intersection(node.outs) or node.eqn.effects:
                live.update(node.ins)
                kept.append(node)
        nodes = kept[::-1]
        readers: dict[int, list[int]] = collections.defaultdict(list)
        for i, node in enumerate(nodes):
            for value in node.ins:
                readers[value].append(i)
        for value in self.outs:
            readers[value].append(RESULT)
        maker = {value: i for i, node in enumerate(nodes) for value in node.outs}
        return Graph(
            nodes,
            self.shapes,
            self.paths,
            self.constants,
            self.data,
            dict(readers),
            maker,
        )


def _inside(eqn: core.JaxprEqn) -> Block | None:
    """Returns the body of a call that holds no contraction to be named."""
    jaxpr, consts = flow.opened(eqn.params[flow.CALLS[eqn.primitive.name]])
    return None if _contracts(jaxpr) else Block(jaxpr, consts, {})


def _contracts(jaxpr: core.Jaxpr) -> bool:
    return any(
        eqn.primitive.name in CONTRACTIONS
        or any(_contracts(inner) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )
