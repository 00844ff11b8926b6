"""The contractions of a traced pure function, named by JAX's name stack.

A *site* is one `dot_general` or `conv_general_dilated` of the program. A function
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

from lib.program import flow

CONTRACTIONS = ("dot_general", "conv_general_dilated")
SIDES = ("lhs", "rhs")

# Contractions that are primitives of their own, with other operands than a site has.
FOREIGN = {"ragged_dot_general": "its rows are grouped at run time"}


class Site(NamedTuple):
    """One contraction of a program.

    Attributes:
      name: the scope it stands in, such as `MLP/Dense_0`; the primitive's name where
        there is no scope; `#1`, `#2` mark further sites of the same scope, in the
        program's order.
      primitive: `dot_general` or `conv_general_dilated`.
      lhs, rhs, out: shape and dtype of the operands and the result of one call.
      lhs_is_weight, rhs_is_weight: the operand depends on nothing but the first
        positional argument (the params) and constants.
      macs: multiply-accumulates of all calls in one run of the program. Every tap of a
        convolution counts, those on padding too. A while is counted as one turn, and
        a cond as all of its branches.
      scans: lengths of the scans around it, outermost first.
      around: the control flow around it, outermost first: scan, while, cond.
      params: the equation's own parameters (dimension numbers, strides, ...).
    """

    name: str
    primitive: str
    lhs: jax.ShapeDtypeStruct
    rhs: jax.ShapeDtypeStruct
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
            if not weight[side]
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
    """

    block: Block
    leaves: list[Any]
    out_tree: jax.tree_util.PyTreeDef
    sites: list[Site]
    missed: list[Missed]


def sites(f: Callable[..., Any]) -> Callable[..., list[Site]]:
    """Returns a function of f's arguments that lists f's sites in program order.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """
    return lambda *args, **kwargs: read(f, args, kwargs).sites


def missed(f: Callable[..., Any]) -> Callable[..., list[Missed]]:
    """Returns a function of f's arguments that lists the contractions not reached.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """
    return lambda *args, **kwargs: read(f, args, kwargs).missed


def read(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Program:
    """Returns `f` traced at these arguments, with its sites found and named."""
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
    reader = _Reader()
    block = reader.block(closed, marks, _Place("", (), ()))
    found = list(block.sites())
    return Program(block, leaves, jax.tree.structure(shape), found, reader.missed)


class _Place(NamedTuple):
    """Where a body stands: its scope, the scans and the control flow around it."""

    scope: str
    scans: tuple[int, ...]
    around: tuple[str, ...]

    def below(self, eqn: core.JaxprEqn) -> "_Place":
        """Returns the place of the bodies of an equation that stands here."""
        name, scans, around = eqn.primitive.name, self.scans, self.around
        if name == "scan":
            scans += (eqn.params["length"],)
        if name in ("scan", "while", "cond"):
            around += (name,)
        return _Place(self.join(eqn), scans, around)

    def join(self, eqn: core.JaxprEqn) -> str:
        """Returns the full scope of an equation that stands here."""
        own = str(eqn.source_info.name_stack)
        return "/".join(part for part in (self.scope, own) if part)


class _Reader:
    """Walks a program once, in order, naming its sites."""

    def __init__(self) -> None:
        self.missed: list[Missed] = []
        self._seen: collections.Counter[str] = collections.Counter()

    def block(self, body: Any, marks: flow.Marks, place: _Place) -> Block:
        """Returns the block of a body whose inputs have these marks."""
        jaxpr, consts = flow.opened(body)
        env = flow.Environment(jaxpr, marks)
        steps: dict[int, Site | tuple[Block, ...]] = {}
        for i, eqn in enumerate(jaxpr.eqns):
            marked = env.read(eqn.invars)
            if eqn.primitive.name in CONTRACTIONS:
                steps[i] = self._site(eqn, marked, place)
            elif _holds(eqn):
                why = _closed(eqn)
                if why:
                    name = place.join(eqn) or eqn.primitive.name
                    self.missed.append(Missed(name, eqn.primitive.name, why))
                else:
                    steps[i] = tuple(
                        self.block(inner, inner_marks, place.below(eqn))
                        for inner, inner_marks in flow.bodies(eqn, marked)
                    )
            env.step(eqn)
        return Block(jaxpr, consts, steps)

    def _site(self, eqn: core.JaxprEqn, marks: flow.Marks, place: _Place) -> Site:
        scope = place.join(eqn) or eqn.primitive.name
        number = self._seen[scope]
        self._seen[scope] += 1
        lhs, rhs, out = (
            jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
            for v in (*eqn.invars, *eqn.outvars)
        )
        return Site(
            name=f"{scope}#{number}" if number else scope,
            primitive=eqn.primitive.name,
            lhs=lhs,
            rhs=rhs,
            out=out,
            lhs_is_weight=not marks[0],
            rhs_is_weight=not marks[1],
            macs=_macs(eqn, lhs, rhs, out) * math.prod(place.scans),
            scans=place.scans,
            around=place.around,
            params=eqn.params,
        )


def _macs(
    eqn: core.JaxprEqn,
    lhs: jax.ShapeDtypeStruct,
    rhs: jax.ShapeDtypeStruct,
    out: jax.ShapeDtypeStruct,
) -> int:
    """Returns the multiply-accumulates of one call."""
    dims = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "dot_general":
        (contracting, _), _ = dims
        return out.size * math.prod(lhs.shape[axis] for axis in contracting)
    # rhs_spec: output features, input features of one group, then the window.
    return out.size * math.prod(rhs.shape[axis] for axis in dims.rhs_spec[1:])


def _holds(eqn: core.JaxprEqn) -> int:
    """Returns how many contractions an equation is or has inside, at any depth."""
    if eqn.primitive.name in (*CONTRACTIONS, *FOREIGN):
        return 1
    return sum(
        _holds(inner)
        for body in core.jaxprs_in_params(eqn.params)
        for inner in body.eqns
    )


def _closed(eqn: core.JaxprEqn) -> str:
    """Returns why the bodies of an equation cannot be entered; empty if they can."""
    name, params = eqn.primitive.name, eqn.params
    if name in FOREIGN:
        return FOREIGN[name]
    count = _holds(eqn)
    inside = f"{count} contraction{'s' if count > 1 else ''} inside"
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return f"{inside}, left whole to keep its own derivative rule"
    if name == "while" and params["cond_jaxpr"].out_avals[0].shape:
        return f"{inside} a while of which each example has its own number of turns"
    if name == "cond" and params.get("branches_platforms") is not None:
        return f"{inside} branches that are chosen by platform"
    if name in flow.CALLS or name in ("scan", "while", "cond"):
        return ""
    return f"{inside}, and no rule says how {name} uses them"
