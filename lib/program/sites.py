"""The contractions of a traced pure function, named by JAX's name stack.

A *site* is one `dot_general` or `conv_general_dilated` of the program, and with other
points than "inputs" a residual addition or a mean too (`points.py`). A function
`f(params, *args, **kwargs)` is traced with its arrays abstract; everything else in its
arguments (`train=True`, None, a Python number) is static.
"""

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lib.program import flow, reach
from lib.program import points as policies
from lib.program.points import CONTRACTIONS

SIDES = ("lhs", "rhs")


class Site(NamedTuple):
    """One contraction of a program.

    Attributes:
      name: the scope it stands in, such as `MLP/Dense_0`; the primitive's name where
        there is no scope; `#1`, `#2` mark further sites of the same scope, in the
        program's order. A residual addition or the sum of a mean is its primitive
        in its scope.
      primitive: `dot_general`, `conv_general_dilated`, or one of `POLICIES`.
      lhs, rhs, out: shape and dtype of the operands and the result of one call; a
        mean has one operand, and its rhs is None.
      lhs_is_weight, rhs_is_weight: the operand depends on nothing but the first
        positional argument (the params) and constants.
      macs: multiply-accumulates of all calls in one run of the program. Every tap of a
        convolution counts, those on padding too. A while is counted as one turn, and
        a cond as all of its branches. 0 of what only adds.
      scans: lengths of the scans around it, outermost first.
      around: the control flow around it, outermost first: scan, while, cond.
      params: the equation's own parameters (dimension numbers, strides, ...).
    """

    name: str
    primitive: str
    lhs: jax.ShapeDtypeStruct
    rhs: jax.ShapeDtypeStruct | None
    out: jax.ShapeDtypeStruct
    lhs_is_weight: bool
    rhs_is_weight: bool
    macs: int
    scans: tuple[int, ...]
    around: tuple[str, ...]
    params: Mapping[str, Any]

    @property
    def repeats(self) -> int:
        """How often the scans around it call it in one run of the program."""
        return math.prod(self.scans)

    @property
    def recordable(self) -> bool:
        """Whether values seen here can leave the program: a scan stacks them, but a
        while has no fixed number of turns and a cond may not run at all."""
        return not {"while", "cond"} & set(self.around)

    @property
    def activations(self) -> tuple[str, ...]:
        """The sides, `lhs` and `rhs`, that are data and real floating point."""
        weight = {"lhs": self.lhs_is_weight, "rhs": self.rhs_is_weight}
        return tuple(
            side
            for side in SIDES
            if getattr(self, side) is not None
            and not weight[side]
            and jnp.issubdtype(getattr(self, side).dtype, jnp.floating)
        )


class Missed(NamedTuple):
    """A part of a program that was left as it is, though it holds contractions.

    Attributes:
      name: the scope it stands in, or the primitive's name where there is none.
      primitive: what could not be entered, such as `custom_vjp_call`.
      why: the reason, for a person to read.
    """

    name: str
    primitive: str
    why: str


class Block(NamedTuple):
    """A jaxpr with what is to be done at some of its equations.

    Attributes:
      jaxpr: the open jaxpr.
      consts: values of its constants.
      steps: equation number -> its site, or the blocks of the bodies to enter.
        Equations that are not in it are left whole.
    """

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    steps: dict[int, "Site | tuple[Block, ...]"]

    def sites(self) -> Iterator[Site]:
        """Returns the sites in it and in the blocks below, in program order."""
        for step in self.steps.values():
            if isinstance(step, Site):
                yield step
            else:
                for block in step:
                    yield from block.sites()


class Program(NamedTuple):
    """A function traced at given arguments.

    Attributes:
      block: what to run.
      leaves: the arrays among the arguments, flat; they may be ShapeDtypeStructs.
      out_tree: structure of the function's result.
      sites: every contraction that was reached, in program order.
      missed: what was not entered.
      shared: (site, side) of operands that are one value or parts of one, for points
        that ask for one range of each value.
    """

    block: Block
    leaves: list[Any]
    out_tree: jax.tree_util.PyTreeDef
    sites: list[Site]
    missed: list[Missed]
    shared: list[list[tuple[str, str]]]


def sites(
    f: Callable[..., Any], *, points: str = "inputs"
) -> Callable[..., list[Site]]:
    """Returns a function of f's arguments that lists f's sites in program order.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`. `points` is one
    of `POLICIES`.
    """
    return lambda *args, **kwargs: read(f, args, kwargs, points=points).sites


def missed(f: Callable[..., Any]) -> Callable[..., list[Missed]]:
    """Returns a function of f's arguments that lists the contractions not reached.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """
    return lambda *args, **kwargs: read(f, args, kwargs).missed


def read(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    points: str = "inputs",
) -> Program:
    """Returns `f` traced at these arguments, with its sites found and named.

    Contractions have the same names whatever the points.

    Raises:
      UserError: `points` is no name of `POLICIES`.
    """
    policies.check(points)
    flat, tree = jax.tree.flatten((args, dict(kwargs)))
    traced = [
        isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for x in flat
    ]
    # NumPy's float64 would not survive the trace; an array of JAX's own does.
    leaves = [
        jnp.asarray(x) if isinstance(x, np.ndarray) else x
        for x, is_traced in zip(flat, traced, strict=True)
        if is_traced
    ]

    def call(*leaves):
        rest = iter(leaves)
        merged = [
            next(rest) if is_traced else x
            for x, is_traced in zip(flat, traced, strict=True)
        ]
        args, kwargs = jax.tree.unflatten(tree, merged)
        return f(*args, **kwargs)

    closed, shape = jax.make_jaxpr(call, return_shape=True)(*leaves)
    weights = sum(traced[: len(jax.tree.leaves(args[:1]))])
    marks = [i >= weights for i in range(len(leaves))]
    reader = _Reader(policies.operands(closed, marks, points))
    block = reader.block(closed, marks, reach.Place("", (), (), ()))
    found = list(block.sites())
    out_tree = jax.tree.structure(shape)
    shared = [list(group) for group in reader.shared.values() if len(group) > 1]
    return Program(block, leaves, out_tree, found, reader.missed, shared)


class _Reader:
    """Walks a program once, in order, naming its sites."""

    def __init__(self, operands: Mapping[policies.Path, Sequence[Any]]) -> None:
        self.missed: list[Missed] = []
        self.shared: dict[Any, list[tuple[str, str]]] = {}
        self._operands = operands
        self._within = {path[:n] for path in operands for n in range(len(path))}
        self._seen: collections.Counter[str] = collections.Counter()

    def block(self, body: Any, marks: flow.Marks, place: reach.Place) -> Block:
        """Returns the block of a body whose inputs have these marks."""
        jaxpr, consts = flow.opened(body)
        env = flow.Environment(jaxpr, marks)
        steps: dict[int, Site | tuple[Block, ...]] = {}
        for i, eqn in enumerate(jaxpr.eqns):
            marked, path = env.read(eqn.invars), (*place.path, i)
            if eqn.primitive.name in CONTRACTIONS or path in self._operands:
                steps[i] = site = self._site(eqn, marked, place)
                for side, source in zip(
                    SIDES, self._operands.get(path, ()), strict=False
                ):
                    if side in site.activations:
                        self.shared.setdefault(source, []).append((site.name, side))
            elif reach.holds(eqn) or path in self._within:
                why = reach.closed(eqn)
                if why and reach.holds(eqn):
                    name = place.join(eqn) or eqn.primitive.name
                    self.missed.append(Missed(name, eqn.primitive.name, why))
                elif not why:
                    steps[i] = tuple(
                        self.block(inner, inner_marks, place.below(eqn, i, k))
                        for k, (inner, inner_marks) in enumerate(
                            flow.bodies(eqn, marked)
                        )
                    )
            env.step(eqn)
        return Block(jaxpr, consts, steps)

    def _site(self, eqn: core.JaxprEqn, marks: flow.Marks, place: reach.Place) -> Site:
        name = eqn.primitive.name
        scope = place.join(eqn) or name
        if name not in CONTRACTIONS and scope != name:
            scope += f"/{name}"
        number = self._seen[scope]
        self._seen[scope] += 1
        *operands, out = (
            jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
            for v in (*eqn.invars, *eqn.outvars)
        )
        lhs, rhs = operands if len(operands) > 1 else (*operands, None)
        return Site(
            name=f"{scope}#{number}" if number else scope,
            primitive=name,
            lhs=lhs,
            rhs=rhs,
            out=out,
            lhs_is_weight=not marks[0],
            rhs_is_weight=rhs is not None and not marks[1],
            macs=_macs(eqn, lhs, rhs, out) * math.prod(place.scans),
            scans=place.scans,
            around=place.around,
            params=eqn.params,
        )


def _macs(
    eqn: core.JaxprEqn,
    lhs: jax.ShapeDtypeStruct,
    rhs: jax.ShapeDtypeStruct | None,
    out: jax.ShapeDtypeStruct,
) -> int:
    """Returns the multiply-accumulates of one call."""
    if eqn.primitive.name not in CONTRACTIONS:
        return 0
    dims = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "dot_general":
        (contracting, _), _ = dims
        return out.size * math.prod(lhs.shape[axis] for axis in contracting)
    # rhs_spec: output features, input features of one group, then the window.
    return out.size * math.prod(rhs.shape[axis] for axis in dims.rhs_spec[1:])
