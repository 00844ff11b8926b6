"""How one activation is rounded: on which range, and what of the range is learned.

The value is always `numerics.fake_quant` on `numerics.grid` of the range, so that what
reads the ranges afterwards (a file, an exporter, integer arithmetic) rounds alike; what
is learned differs in the derivatives only.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors, numerics
from lib.program.points import MEANS
from lib.program.sites import Site

Settings = Mapping[str, Any]
Bounds = tuple[jax.Array, jax.Array]  # (smallest, largest)

# Where a range comes from: calibration, or the values of each call.
RANGES = ("static", "dynamic", "token")
# How a range is trained; "" is not at all.
LEARNED = ("", "pact", "lsq", "lsq+")


def check(settings: Settings, where: str) -> None:
    """Raises a `UserError` for a way to learn that has nothing to learn."""
    learn, kind = settings.get("learn", ""), settings.get("range", "static")
    if learn and kind != "static":
        raise errors.UserError(
            f"{where}: learn {learn!r} trains a static range; got range {kind!r}, "
            "which is that of each call"
        )
    if learn == "lsq+" and settings["symmetric"]:
        raise errors.UserError(
            f"{where}: learn 'lsq+' trains an offset, which symmetric grids do not "
            "have; set symmetric to False, or learn to 'lsq'"
        )


def rows(site: Site, side: str) -> tuple[int, ...]:
    """Returns the axes of an operand that a row has a range along: all not contracted.

    Of a convolution the images alone: its window sums over places and channels; of a
    mean, too. Of an addition, which contracts nothing, all but the last.
    """
    rank = len(getattr(site, side).shape)
    if site.primitive == "add":
        return tuple(range(rank - 1))
    if site.primitive in MEANS:
        return (0,)
    dims = site.params["dimension_numbers"]
    if site.primitive == "conv_general_dilated":
        spec = dims.lhs_spec if side == "lhs" else dims.rhs_spec
        return (spec[0],)
    contracted = dims[0][("lhs", "rhs").index(side)]
    return tuple(axis for axis in range(rank) if axis not in contracted)


def seen(x: jax.Array, site: Site, side: str, kind: str) -> Bounds:
    """Returns the range of the values of this call, of one length or one a row.

    Args:
      x: the operand.
      site: whose operand it is.
      side: "lhs" or "rhs".
      kind: "dynamic", two scalars; or "token", of x's rank and of length 1 along the
        axes that share a range.
    """
    x = lax.stop_gradient(x)
    kept = rows(site, side) if kind == "token" else ()
    shared = tuple(axis for axis in range(x.ndim) if axis not in kept)
    ends = (f(x, axis=shared, keepdims=bool(kept)) for f in (jnp.min, jnp.max))
    smallest, largest = ends
    return smallest, largest


def steps_of(settings: Settings) -> jax.Array:
    """Returns how many steps of the grid lie between 0, or the smallest, and the end.

    `2**(bits - 1) - 1` where symmetric, else `2**bits - 1`: Q_P of Esser et al. 2020.
    """
    return numerics.levels(settings["bits"], symmetric=settings["symmetric"])[1]


def apply(x: jax.Array, bounds: Bounds, settings: Settings) -> jax.Array:
    """Returns `x` rounded onto the grid of its range, in x's dtype.

    Args:
      x: an activation.
      bounds: scalars, or of x's rank with lengths 1.
      settings: of its rule: "bits", "symmetric" and perhaps "learn".
    """
    grid = numerics.grid(*bounds, settings["bits"], symmetric=settings["symmetric"])
    match settings.get("learn", ""):
        case "":
            return numerics.fake_quant(x, grid)
        case "pact":
            return _pact(x, bounds, grid, settings["symmetric"])
        case learn:
            grid = numerics.Grid(*map(lax.stop_gradient, grid))
            return _learned_step(x, bounds, grid, settings, learn)


def _pact(x: jax.Array, bounds: Bounds, grid: numerics.Grid, symmetric: bool):
    """Returns x rounded; derivative of `clip(x, smallest, largest)`.

    PACT, Choi et al. 2018 (arXiv 1805.06085), eq. 3: to the largest value alpha it is
    1 where x >= alpha and 0 elsewhere. Symmetric: -1 where x <= -alpha.
    """
    smallest, alpha = (bound.astype(x.dtype) for bound in bounds)
    smallest = -alpha if symmetric else lax.stop_gradient(smallest)
    clipped = jnp.where(x >= alpha, alpha, jnp.where(x <= smallest, smallest, x))
    return numerics.straight_through(clipped, numerics.fake_quant(x, grid))


def _learned_step(
    x: jax.Array, bounds: Bounds, grid: numerics.Grid, settings: Settings, learn: str
):
    """Returns x rounded, with derivatives to the ends of the range.

    LSQ (Esser et al. 2020, arXiv 1902.08153, eq. 3) and LSQ+ (Bhalgat et al. 2020,
    arXiv 2004.09576, eqs. 4 and 5), with the step s = (largest - smallest) / Q_P and
    the offset beta = smallest: where x lies in the range, r = (round(v) - v) / Q_P goes
    to the largest and -r to the smallest; above it, 1 to the largest; below it, 1 to
    the smallest. "lsq" holds the smallest still, a symmetric one at minus the largest.

    Both are multiplied by `Q_P**2 / sqrt(N * Q_P)`, N the elements of one example: then
    SGD moves the step as with the paper's own derivative and scale.
    """
    smallest, largest = (bound.astype(jnp.float32) for bound in bounds)
    steps, symmetric = steps_of(settings), settings["symmetric"]
    examples = x.shape[0] if x.ndim else 1
    count = math.prod(x.shape) / max(examples, 1)
    share = steps**1.5 / jnp.sqrt(jnp.float32(max(count, 1)))
    if learn == "lsq":
        smallest = lax.stop_gradient(smallest)
    # Derivatives of these reach the range; their values are those of the grid.
    smallest, largest = smallest * share, largest * share
    scale = (largest if symmetric else largest - smallest) / steps
    scale = numerics.straight_through(scale, grid.scale)
    zero_point = grid.zero_point
    if not symmetric:
        # smallest = -scale * zero_point, of which the scale's part is a constant here.
        offset = -(smallest + lax.stop_gradient(zero_point) * scale) / grid.scale
        zero_point = numerics.straight_through(offset, zero_point)
    return numerics.learned_fake_quant(x, numerics.Grid(scale, zero_point, *grid[2:]))
