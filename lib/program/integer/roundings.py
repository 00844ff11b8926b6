"""The roundings of a traced program, found as equations."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.extend import core

from lib.program.sites import Block, Site

ROUNDING = "fake_quant"  # the name of `numerics.fake_quant_p`


def with_roundings(block: Block) -> tuple[Block, Mapping[str, list[Any]]]:
    """Returns a block with its roundings among its steps, as if they were sites.

    Beside it `{site: [shape of the scale that lhs, rhs is rounded by, or None]}`.
    """
    steps: dict[int, Any] = dict(block.steps)
    made: dict[Any, tuple[int, ...]] = {}
    found: dict[str, list[Any]] = {}
    for i, eqn in enumerate(block.jaxpr.eqns):
        step = block.steps.get(i)
        if eqn.primitive.name == ROUNDING:
            steps[i] = _rounding(eqn)
            made[eqn.outvars[0]] = eqn.invars[1].aval.shape
        elif isinstance(step, Site):
            found[step.name] = [
                None if isinstance(v, core.Literal) else made.get(v) for v in eqn.invars
            ]
        elif step is not None:
            inner = [with_roundings(b) for b in step]
            steps[i] = tuple(b for b, _ in inner)
            for _, below in inner:
                found.update(below)
    return block._replace(steps=steps), found


def _rounding(eqn: core.JaxprEqn) -> Site:
    x, scale, out = (
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
        for v in (*eqn.invars[:2], *eqn.outvars)
    )
    return Site(
        name="",
        primitive=ROUNDING,
        lhs=x,
        rhs=scale,
        out=out,
        lhs_is_weight=False,
        rhs_is_weight=False,
        macs=0,
        scans=(),
        around=(),
        params=eqn.params,
    )
