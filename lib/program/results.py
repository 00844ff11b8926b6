"""The results of contractions, as runtimes see them: behind the bias.

A runtime that contracts integers writes integers, so that the result of each
contraction has to be on a grid too. Mostly it is: the next contraction rounds it,
behind a relu or a pooling that keeps the order of values. Here the others are found,
in the traced program and by what it computes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from lib import errors
from lib.program import flow
from lib.program.calibrate import Range, extremes
from lib.program.interpreter import Step, execute
from lib.program.meets import axes
from lib.program.sites import CONTRACTIONS, SIDES, Program, Site

RESULT = "result"  # the primitive's name of a step at a result
_AFFINE = ("add", "sub", "mul")  # by what is no data: a bias, batch norm
# What rounding may move past: each value is one of the operands', or their largest.
_KEEPING = (
    "broadcast_in_dim",
    "copy",
    "copy_p",
    "max",
    "reduce_max",
    "reduce_window_max",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
)


class Result(NamedTuple):
    """Where the result of a contraction is.

    Attributes:
      behind: whether it is a step of its own, behind the contraction.
      positive: whether a relu is all that reads it.
    """

    behind: bool
    positive: bool


def with_results(
    program: Program, rounded: Mapping[str, Iterable[str]], weights: int
) -> tuple[Program, dict[str, Result]]:
    """Returns the program with steps at results that nothing else rounds, and which.

    Such a step is a `Site` of the primitive `RESULT` and the contraction's own name, at
    the last addition or product with a weight behind it: `bind` of its two operands is
    the result. Where there is none, the contraction itself gives the result, and no
    step is added. Only outside of loops and calls, and not of two activations: behind
    their product stands a softmax, which a runtime wants in float or on its own grid.

    Args:
      program: as `sites.read` gives it.
      rounded: {site: its sides that are rounded}; others are not looked at.
      weights: how many of `program.leaves`, the first ones, are no data.
    """
    block, steps = program.block, dict(program.block.steps)
    readers: dict[core.Var, list[tuple[int, core.JaxprEqn]]] = {}
    for i, eqn in enumerate(block.jaxpr.eqns):
        for atom in eqn.invars:
            if not isinstance(atom, core.Literal):
                readers.setdefault(atom, []).append((i, eqn))
    ends = {v for v in block.jaxpr.outvars if not isinstance(v, core.Literal)}
    data = _data(program, weights)

    def tail(i: int, channels: int) -> int:
        """Returns the last equation of the affine chain behind equation `i`.

        What is added or multiplied varies along the last axes, the channels, alone.
        """
        last, (out,) = i, block.jaxpr.eqns[i].outvars
        while out not in ends and len(readers.get(out, ())) == 1:
            ((j, eqn),) = readers[out]
            name = eqn.primitive.name
            others = [a for a in eqn.invars if a is not out]
            shapes = [a.aval.shape for a in others]
            along = all(n == 1 for x in shapes for n in x[: len(x) - channels])
            still = not any(a in data for a in map(_var, others))
            if name in _AFFINE and still and along:
                last = j
            elif name not in ("reshape", "transpose", "squeeze"):
                break
            (out,) = eqn.outvars
        return last

    def settled(out: core.Var) -> bool:
        """Returns whether all that reads a value rounds it."""
        if out in ends or out not in readers:
            return False
        for j, eqn in readers[out]:
            step = block.steps.get(j)
            if isinstance(step, Site):
                done = rounded.get(step.name, ())
                sides = zip(SIDES, eqn.invars, strict=False)
                if not all(side in done for side, a in sides if a is out):
                    return False
            elif not _keeps(eqn) or not all(settled(v) for v in eqn.outvars):
                return False
        return True

    found = {}
    for i, step in block.steps.items():
        if not isinstance(step, Site) or not rounded.get(step.name):
            continue
        if step.primitive not in CONTRACTIONS or len(step.activations) > 1:
            continue
        last = tail(i, len(axes(step, "rhs")[1]))
        (out,) = block.jaxpr.eqns[last].outvars
        if settled(out):
            continue
        relus = [_relu(eqn) for _, eqn in readers.get(out, ())]
        positive = bool(relus) and all(relus) and out not in ends
        found[step.name] = Result(last != i, positive)
        if last != i:
            shape = jax.ShapeDtypeStruct(out.aval.shape, out.aval.dtype)
            steps[last] = step._replace(primitive=RESULT, out=shape)
    return program._replace(block=block._replace(steps=steps)), found


def at_results(
    found: Mapping[str, Result], step: Step, at: Callable[[str, jax.Array], Any]
) -> Step:
    """Returns a step of `execute` that calls `at(name, result)` at each result.

    Args:
      found: as `with_results` returns it, beside the program to execute.
      step: what to do at a contraction.
      at: returns (what the result is to be, what to record of it or None).
    """

    def both(site, lhs, rhs, bind, feed):
        if site.primitive == RESULT:
            return at(site.name, bind(lhs, rhs))
        out, record = step(site, lhs, rhs, bind, feed)
        if site.name in found and not found[site.name].behind:
            return at(site.name, out)
        return out, record

    return both


def result_ranges(
    program: Program,
    found: Mapping[str, Result],
    params: Any,
    batches: Iterable[Any],
) -> dict[str, Range]:
    """Returns `{site: (smallest, largest)}` of the results, over all batches.

    Args:
      program: of `f(params, x)`, as `with_results` returns it.
      found: which results there are.
      params: arrays.
      batches: what `x` is, of the shape that the program was traced with.

    Raises:
      UserError: there are no batches.
    """

    def record(name, out):
        low, high = extremes(out)
        return out, (jnp.zeros_like(low) if found[name].positive else low, high)

    step = at_results(
        found, lambda site, lhs, rhs, bind, feed: (bind(lhs, rhs), None), record
    )

    @jax.jit
    def one(params, x):
        leaves = jax.tree.leaves((params, x))
        return execute(program._replace(leaves=leaves), step, {})[1]

    ranges = None
    for x in batches:
        new = one(params, x)
        ranges = new if ranges is None else _joined(ranges, new)
    if ranges is None:
        raise errors.UserError("ranges of results: got no batches, expected one")
    return ranges


def _joined(a: Mapping[str, Range], b: Mapping[str, Range]) -> dict[str, Range]:
    return {
        name: (jnp.minimum(low, b[name][0]), jnp.maximum(high, b[name][1]))
        for name, (low, high) in a.items()
    }


def _var(atom: Any) -> Any:
    return None if isinstance(atom, core.Literal) else atom


def _keeps(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation keeps values as they are, or takes the largest."""
    name = eqn.primitive.name
    if name in flow.CALLS:
        inner, _ = flow.opened(eqn.params[flow.CALLS[name]])
        return all(_keeps(e) for e in inner.eqns)
    return name in _KEEPING


def _relu(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation is `max(x, 0)`, inside a call perhaps."""
    name = eqn.primitive.name
    if name in flow.CALLS:
        inner, _ = flow.opened(eqn.params[flow.CALLS[name]])
        return len(inner.eqns) == 1 and _relu(inner.eqns[0])
    literals = [a.val for a in eqn.invars if isinstance(a, core.Literal)]
    return name == "max" and [float(x) for x in literals] == [0.0]


def _data(program: Program, weights: int) -> set[core.Var]:
    """Returns the variables that depend on more than the weights."""
    jaxpr = program.block.jaxpr
    marks = [i >= weights for i in range(len(jaxpr.invars))]
    env = flow.Environment(jaxpr, marks)
    for eqn in jaxpr.eqns:
        env.step(eqn)
    atoms = [*jaxpr.invars, *(v for eqn in jaxpr.eqns for v in eqn.outvars)]
    return {v for v, mark in zip(atoms, env.read(atoms), strict=True) if mark}
