"""Arguments followed to the contractions they enter, with the moves on the way.

A weight's codes have to go where the weight goes. Here is written down what a traced
program does to an argument before it is contracted: reshapes, transpositions, and the
slices that scans take of its leading axis; no value may change.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from lib.program import flow
from lib.program.sites import SIDES, Block, Program, Site

# Equations that keep every element, in row-major order, where the size stays.
_IN_ORDER = (
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "optimization_barrier",
    "reshape",
    "sharding_constraint",
    "squeeze",
)


class Carried(NamedTuple):
    """How an argument arrives at a contraction.

    Attributes:
      leaf: its number among `program.leaves`.
      shape: `[*slices, *operand]`: the axes that scans slice, outermost first, then
        those of the operand.
      moves: ("reshape", shape) and ("transpose", permutation), in order, that make
        `shape` of the argument's own.
      sliced: for each scan around the contraction, whether it gives a slice a turn.
    """

    leaf: int
    shape: tuple[int, ...]
    moves: tuple[tuple[str, tuple[int, ...]], ...] = ()
    sliced: tuple[bool, ...] = ()

    def move(self, x: Any) -> Any:
        """Returns an array of the argument's shape moved as the argument is."""
        for name, value in self.moves:
            x = x.reshape(value) if name == "reshape" else x.transpose(value)
        return x


def carried(program: Program, wanted: Sequence[int]) -> dict[str, dict[str, Carried]]:
    """Returns `{site: {'lhs' or 'rhs': how an argument arrives there}}`.

    Only contractions that one of the arguments reaches unchanged, casts between
    floats aside. What a loop carries from turn to turn is no argument any more.

    Args:
      program: as `sites.read` gives it.
      wanted: numbers of `program.leaves`.
    """
    found: dict[str, dict[str, Carried]] = {}
    held = [
        Carried(i, tuple(x.shape)) if i in wanted else None
        for i, x in enumerate(program.leaves)
    ]
    _follow(program.block, held, found)
    return found


def _follow(
    block: Block, held: Sequence[Carried | None], found: dict[str, dict[str, Carried]]
) -> list[Carried | None]:
    """Adds what arrives in a block; returns what its outputs hold."""
    env = dict(zip(block.jaxpr.invars, held, strict=True))

    def read(atoms):
        return [None if isinstance(a, core.Literal) else env.get(a) for a in atoms]

    for i, eqn in enumerate(block.jaxpr.eqns):
        given, step = read(eqn.invars), block.steps.get(i)
        if not any(given):
            continue
        outs: list[Carried | None] = []
        if isinstance(step, Site):
            sides = zip(SIDES, given, strict=False)
            found[step.name] = {side: held for side, held in sides if held}
        elif eqn.primitive.name in flow.CALLS:
            outs = _follow(_body(eqn, step), given, found)
        elif step is not None:
            for inner, inside in zip(step, _inside(eqn, given), strict=True):
                _follow(inner, inside, found)
        else:
            pairs = zip(given, eqn.outvars, strict=False)
            outs = [_moved(eqn, one, out.aval) for one, out in pairs]
        env.update(zip(eqn.outvars, outs, strict=False))
    return read(block.jaxpr.outvars)


def _body(eqn: core.JaxprEqn, step: Any) -> Block:
    if step is not None:
        return step[0]
    # No contraction inside, but a reshape perhaps.
    jaxpr, consts = flow.opened(eqn.params[flow.CALLS[eqn.primitive.name]])
    return Block(jaxpr, consts, {})


def _moved(
    eqn: core.JaxprEqn, one: Carried | None, out: jax.core.ShapedArray
) -> Carried | None:
    """Returns what an output holds of the operand of the same number, if all of it."""
    if one is None or not jnp.issubdtype(out.dtype, jnp.floating):
        return None
    slices = sum(one.sliced)
    if eqn.primitive.name == "transpose":
        inner = (slices + axis for axis in eqn.params["permutation"])
        move = ("transpose", (*range(slices), *inner))
    elif eqn.primitive.name in _IN_ORDER:
        move = ("reshape", (*one.shape[:slices], *out.shape))
    else:
        return None
    shape = (*one.shape[:slices], *out.shape)
    if math.prod(shape) != math.prod(one.shape):
        return None  # elements are repeated
    if move == ("reshape", one.shape):
        return one
    return one._replace(shape=shape, moves=(*one.moves, move))


def _inside(
    eqn: core.JaxprEqn, given: list[Carried | None]
) -> list[list[Carried | None]]:
    """Returns what the inputs of each body of a scan, while or cond hold."""

    def enter(sliced: bool):
        return lambda one: one and one._replace(sliced=(*one.sliced, sliced))

    return flow.entering(eqn, given, enter(False), enter(True))
