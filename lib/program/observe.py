"""Statistics of the activations that enter the contractions of a program."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from lib.program.interpreter import execute
from lib.program.sites import Missed, read


def observe(
    f: Callable[..., Any], stat: Callable[[jax.Array], Any], *, points: str = "inputs"
) -> Callable[..., tuple[Any, dict[str, dict[str, Any]]]]:
    """Returns a function of f's arguments that returns `(out, statistics)`.

    Args:
      f: pure, `f(params, *args, **kwargs)`.
      stat: `stat(x)` returns any pytree of arrays; `x` is an operand, of any shape,
        real floating point.
      points: of `POLICIES`: which operands are looked at.

    Returns:
      A function whose second result is `{site: {'lhs': stat(lhs), 'rhs': stat(rhs)}}`
      with only the sides that are activations (`Site.activations`), and no entry for
      sites that have none or lie inside a while or cond (`unobserved` lists those).
      Under a scan every array has a leading axis of the scan's length.
    """

    def step(site, lhs, rhs, bind, feed):
        del feed
        record = None
        if site.recordable and site.activations:
            operands = {"lhs": lhs, "rhs": rhs}
            record = {side: stat(operands[side]) for side in site.activations}
        return bind(lhs, rhs), record

    @functools.wraps(f)
    def observed(*args, **kwargs):
        return execute(read(f, args, kwargs, points=points), step, {})

    return observed


def unobserved(
    f: Callable[..., Any], *, points: str = "inputs"
) -> Callable[..., list[Missed]]:
    """Returns a function of f's arguments that lists what `observe` does not reach.

    That is what `missed` lists, and the sites with activations inside a while or cond.
    """

    def listing(*args, **kwargs):
        program = read(f, args, kwargs, points=points)
        unseen = [
            Missed(site.name, site.primitive, why_unobserved(site))
            for site in program.sites
            if site.activations and not site.recordable
        ]
        return program.missed + unseen

    return listing


def why_unobserved(site: Any) -> str:
    """Returns why no statistics can leave a site; empty if they can."""
    if site.recordable:
        return ""
    kind = next(kind for kind in site.around if kind in ("while", "cond"))
    reason = {"while": "has no fixed number of turns", "cond": "may not run it"}
    return f"inside a {kind}, which {reason[kind]}, so no statistics can leave"
