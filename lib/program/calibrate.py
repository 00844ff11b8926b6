"""Ranges of activations, found by folding statistics over calibration batches."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import errors
from lib.program.observe import observe
from lib.program.sites import read

Stat = Any  # a pytree of arrays
Range = tuple[jax.Array, jax.Array]  # (smallest, largest)
Ranges = dict[str, dict[str, Range]]  # site -> 'lhs' or 'rhs' -> range


class Calibration(NamedTuple):
    """A way to find the range of a tensor that is seen batch by batch.

    Each function sees one site at a time; scans are mapped over.

    Attributes:
      stat: `stat(x)` returns what to keep of one batch, a pytree of arrays.
      combine: `combine(old, new)` returns what to keep of both.
      ranges: `ranges(stat)` returns the smallest and largest value to represent,
        two scalars.
    """

    stat: Callable[[jax.Array], Stat]
    combine: Callable[[Stat, Stat], Stat]
    ranges: Callable[[Stat], Range]


def extremes(x: jax.Array) -> Range:
    """Returns the least and greatest element, in float32."""
    return jnp.min(x).astype(jnp.float32), jnp.max(x).astype(jnp.float32)


def minmax() -> Calibration:
    """Returns the calibration that covers every value seen."""

    def combine(old, new):
        return jnp.minimum(old[0], new[0]), jnp.maximum(old[1], new[1])

    return Calibration(extremes, combine, lambda stat: stat)


def moving_average(*, decay: float) -> Calibration:
    """Returns the calibration that averages the extremes of the batches.

    `average = decay * average + (1 - decay) * extreme`, from the first batch's
    extremes on (Jacob et al. 2018, arXiv 1712.05877, section 3.1).

    Args:
      decay: weight of the past, in [0, 1).
    """
    if not 0 <= decay < 1:
        raise errors.UserError(
            f"moving_average: decay is at least 0 and less than 1, got {decay}"
        )

    def average(old, new):
        return decay * old + (1 - decay) * new

    def combine(old, new):
        return jax.tree.map(average, old, new)

    return Calibration(extremes, combine, lambda stat: stat)


def fixed(*, bounds: tuple[float, float]) -> Calibration:
    """Returns the calibration that gives every tensor the same range.

    With `(0, 1)` and learned weights these are DoReFa's activations (Zhou et al. 2016,
    arXiv 1606.06160, eq. 11).

    Args:
      bounds: the smallest and the largest value, in that order and not equal.
    """
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise errors.UserError(
            f"fixed: bounds are (smallest, largest), the first below, got {bounds}"
        )
    smallest, largest = (jnp.float32(bound) for bound in bounds)
    return Calibration(
        lambda x: (), lambda old, new: (), lambda stat: (smallest, largest)
    )


def calibrate(
    f: Callable[..., Any],
    params: Any,
    batches: Iterable[tuple[Any, ...]],
    how: Calibration,
    *,
    points: str = "inputs",
    **kwargs: Any,
) -> Ranges:
    """Returns the ranges of f's activations over some batches.

    The program is compiled once for each shape of batch. All examples of a batch
    count, so leave out padding.

    Args:
      f: pure, called as `f(params, *batch, **kwargs)`.
      params: its first argument.
      batches: tuples of the positional arguments that follow; read once.
      how: a calibration, such as `minmax()`.
      points: of `POLICIES`: which operands get a range.
      **kwargs: passed on to `f`; what is no array is static.

    Returns:
      `{site: {'lhs': (smallest, largest), 'rhs': ...}}` in program order, for the
      sites and sides that `observe` reaches; arrays of shape `Site.scans`. With
      other points than "inputs" operands that are one value, or parts of one, get the
      range of all.

    Raises:
      UserError: there are no batches, or a site saw NaN or infinity.
    """
    f = functools.partial(f, **kwargs)

    def measure(x):
        return {"stat": how.stat(x), "finite": jnp.isfinite(x).all()}

    def join(old, new):
        return {
            "stat": how.combine(old["stat"], new["stat"]),
            "finite": old["finite"] & new["finite"],
        }

    @jax.jit
    def fold(old, new):
        return _each(join, old, new)

    watched = observe(f, measure, points=points)
    observed = jax.jit(lambda params, *batch: watched(params, *batch)[1])
    total, order, shared = None, [], []
    for batch in batches:
        new = observed(params, *batch)
        if total is None:
            # jit sorts the keys of a dict; people read a program in its own order.
            program = read(f, (params, *batch), {}, points=points)
            order = [s.name for s in program.sites if s.name in new]
            shared = program.shared
        total = new if total is None else fold(total, new)
    if total is None:
        raise errors.UserError("calibration: got no batches, expected at least one")
    for name in order:
        for side, found in total[name].items():
            if not found["finite"].all():
                raise errors.UserError(
                    f"calibration: the {side} of {name!r} holds NaN or infinity"
                )
    found = jax.jit(lambda total: _each(lambda s: how.ranges(s["stat"]), total))(total)
    for group in shared:
        known = [(site, side) for site, side in group if site in found]
        if known:
            smallest, largest = zip(*(found[a][side] for a, side in known), strict=True)
            whole = (
                functools.reduce(jnp.minimum, smallest),
                functools.reduce(jnp.maximum, largest),
            )
            for site, side in known:
                found[site][side] = whole
    return {name: found[name] for name in order}


def _each(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Returns `function` of each side of each site, mapped over the scans around it.

    Args:
      function: takes what `measure` gave for one operand, once for each record.
      first: `{site: {side: measured}}`.
      *others: records like the first.
    """

    def mapped(*measured):
        over = function
        for _ in range(measured[0]["finite"].ndim):  # a scalar for each call of a site
            over = jax.vmap(over)
        return over(*measured)

    return {
        site: {
            side: mapped(measured, *(other[site][side] for other in others))
            for side, measured in sides.items()
        }
        for site, sides in first.items()
    }
