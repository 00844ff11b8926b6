"""Functions with derivative rules of their own, run at the sizes that are left.

The rule is a program too: the derivative of the equation at the large sizes is traced,
followed from the same units, and run at the small ones.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lib.program.interpreter import bind
from lib.program.reach import Place
from lib.program.sites import Block


def custom_jvp(runner, body, eqn, given, inside, outs):
    """Returns the outputs of a `custom_jvp_call`, with its rule kept."""
    (inner,) = inside
    there = [x is not None for x in given]

    @jax.custom_jvp
    def run(*some):
        return runner.solid(inner, runner.enter(inner, _all(there, some)))

    @run.defjvp
    def derivative(primals, tangents):
        moving = [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in eqn.invars]

        def pushed(xs, dxs):
            def moved(*some):
                rest = iter(some)
                ins = [next(rest) if m else x for x, m in zip(xs, moving, strict=True)]
                return bind(eqn, ins)

            primal = [x for x, m in zip(xs, moving, strict=True) if m]
            return jax.jvp(moved, primal, list(dxs))

        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        held = [body.read(v) for v in eqn.invars]
        some = [a for a, m in zip(avals, moving, strict=True) if m]
        alike = [h for h, m in zip(held, moving, strict=True) if m]
        small = [dx for dx, m in zip(_all(there, tangents), moving, strict=True) if m]
        made = _traced(
            runner,
            pushed,
            (avals, some),
            [*held, *alike],
            [*_all(there, primals), *small],
        )
        count = len(eqn.outvars)
        return made[:count], made[count:]

    return run(*[x for x in given if x is not None])


def custom_vjp(runner, body, eqn, given, inside, outs):
    """Returns the outputs of a `custom_vjp_call`, with its rule kept."""
    (inner,) = inside
    there = [x is not None for x in given]

    @jax.custom_vjp
    def run(*some):
        return runner.solid(inner, runner.enter(inner, _all(there, some)))

    def forward(*some):
        return run(*some), some

    def backward(some, cotangents):
        def pulled(xs, dys):
            return jax.vjp(lambda *ins: bind(eqn, ins), *xs)[1](list(dys))

        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        ends = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
        held = [body.read(v) for v in (*eqn.invars, *eqn.outvars)]
        made = _traced(
            runner, pulled, (avals, ends), held, [*_all(there, some), *cotangents]
        )
        return tuple(dx for dx, is_there in zip(made, there, strict=True) if is_there)

    run.defvjp(forward, backward)
    return run(*[x for x in given if x is not None])


def _all(there: list[bool], some: Any) -> list[Any]:
    rest = iter(some)
    return [next(rest) if is_there else None for is_there in there]


def _traced(runner, f, avals, held, values) -> list[Any]:
    """Returns the flat results of a function traced at the large sizes."""
    closed = jax.make_jaxpr(f)(*avals)
    block = Block(closed.jaxpr, closed.consts, {})
    followed = runner.also(block, held, Place("", (), (), ()))
    return runner.solid(followed, runner.enter(followed, values))
