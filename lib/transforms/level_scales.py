"""Scales for a table of levels, and the nearest level of each weight.

A scale is float32, exact in the weights' dtype, and 1 where there is nothing but zeros.
Weights that are exactly 0 were removed, and count in no mean.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib.transforms import ranges

Axes = tuple[int, ...]
# (scale, threshold): weights up to the threshold are 0; None where the nearest level
# decides.
Fit = tuple[jax.Array, jax.Array | None]

FEW = 16  # levels that are all compared with; of more the nearest is searched for


def borders(levels: np.ndarray) -> np.ndarray:
    """Returns the least float32 that belongs to each level but the first.

    Halfway between two levels the one at an even distance from 0 wins, counted in
    levels: so do IEEE floats; and of -1 and 1 it is 1.
    """
    wide = levels.astype(np.float64)
    middle = (wide[:-1] + wide[1:]) / 2
    border = middle.astype(np.float32)
    place = np.arange(len(middle)) - np.count_nonzero(levels < 0)
    beyond = (border < middle) | ((border == middle) & (place % 2 == 0))
    return np.where(beyond, np.nextafter(border, np.float32(np.inf)), border)


def nearest(x: jax.Array, levels: np.ndarray) -> jax.Array:
    """Returns the place in `levels` of the nearest to each `x`, int32 of x's shape.

    Args:
      x: float32.
      levels: float32, ascending.
    """
    method = "compare_all" if len(levels) <= FEW else "scan_unrolled"
    return jnp.searchsorted(borders(levels), x, side="right", method=method)


def codes(w: jax.Array, fit: Fit, levels: np.ndarray) -> jax.Array:
    """Returns the code of each weight, int32 of w's shape; see `fit`'s type."""
    scale, threshold = fit
    w = w.astype(jnp.float32)
    if threshold is None:
        # As `numerics` does: a quotient is compiled in more than one way.
        inverse = lax.optimization_barrier(1 / lax.optimization_barrier(scale))
        return nearest(w * inverse, levels)
    signs = jnp.where(jnp.abs(w) > threshold, jnp.sign(w), jnp.zeros_like(w))
    return nearest(signs, levels)


def decoded(w: jax.Array, fit: Fit, levels: np.ndarray) -> jax.Array:
    """Returns `levels[codes] * scale` in w's dtype; an exact 0 stays 0."""
    found = (jnp.asarray(levels)[codes(w, fit, levels)] * fit[0]).astype(w.dtype)
    if 0 in levels:
        return found
    return jnp.where(w == 0, jnp.zeros_like(found), found)


def _held(scale: jax.Array, levels: np.ndarray, dtype) -> jax.Array:
    """Returns the scale as the file will hold it: in the weights' dtype."""
    kind = jnp.finfo(dtype)
    scale = lax.reduce_precision(scale, kind.nexp, kind.nmant)
    # So that neither its inverse overflows nor its least level becomes subnormal.
    smallest = np.abs(levels[levels != 0]).min()
    least = 2 * float(jnp.finfo(jnp.float32).tiny) / min(1.0, float(smallest))
    scale = jnp.where(scale < least, jnp.ones_like(scale), scale)
    return lax.optimization_barrier(scale)


def _cover(w: jax.Array, axes: Axes, levels: np.ndarray) -> jax.Array:
    most = jnp.max(jnp.abs(w), axis=axes, keepdims=True).astype(jnp.float32)
    return most * np.float32(1 / levels[-1])


def _mean_where(x: jax.Array, there: jax.Array, axes: Axes) -> jax.Array:
    total = jnp.sum(jnp.where(there, x, jnp.zeros_like(x)), axis=axes, keepdims=True)
    return total / jnp.maximum(jnp.sum(there, axis=axes, keepdims=True), 1)


def largest(w: jax.Array, axes: Axes, levels: np.ndarray) -> Fit:
    """The largest level is the largest magnitude."""
    return _held(_cover(w, axes, levels), levels, w.dtype), None


def power(w: jax.Array, axes: Axes, levels: np.ndarray) -> Fit:
    """The power of two `2**floor(log2(4 s / 3))`, s the scale of `largest`.

    INQ (Zhou et al. 2017, arXiv 1702.03044, eq. 2): all weights are powers of two where
    the levels are.
    """
    cover = _cover(w, axes, levels)
    mantissa, exponent = jnp.frexp(cover)  # s = m 2**e, m >= 1/2
    whole = exponent - jnp.where(mantissa >= 0.75, 0, 1)
    scale = jnp.where(cover > 0, jnp.ldexp(jnp.ones_like(mantissa), whole), 1)
    return _held(scale, levels, w.dtype), None


def mean(w: jax.Array, axes: Axes, levels: np.ndarray) -> Fit:
    """The mean magnitude, best for levels -1 and 1: XNOR-Net, eq. 6.

    Rastegari et al. 2016 (arXiv 1603.05279).
    """
    size = jnp.abs(w.astype(jnp.float32))
    return _held(_mean_where(size, w != 0, axes), levels, w.dtype), None


def ternary(w: jax.Array, axes: Axes, levels: np.ndarray) -> Fit:
    """TWN: zeros up to 0.7 times the mean magnitude; the mean of what is beyond.

    Li et al. 2016 (arXiv 1605.04711, eq. 5 and 6).
    """
    size = jnp.abs(w.astype(jnp.float32))
    threshold = 0.7 * _mean_where(size, w != 0, axes)
    scale = _mean_where(size, size > threshold, axes)
    return _held(scale, levels, w.dtype), threshold


def least_error(w: jax.Array, axes: Axes, levels: np.ndarray) -> Fit:
    """The share k / 32 of `largest`'s scale with the least squared error."""
    whole = _cover(w, axes, levels)
    unit = jnp.where(whole > 0, whole, 1)  # lest squares overflow

    def attempt(best, share):
        scale = _held(whole * share, levels, w.dtype)
        off = (decoded(w, (scale, None), levels) - w).astype(jnp.float32) / unit
        error = jnp.sum(jnp.square(off), axis=axes, keepdims=True)
        better = error < best[0]
        new = (error, scale)
        return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, best), None

    start = (jnp.full_like(unit, jnp.inf), _held(whole, levels, w.dtype))
    shares = jnp.arange(ranges.SHARES, 0, -1, dtype=jnp.float32) / ranges.SHARES
    (_, scale), _ = lax.scan(attempt, start, shares)
    return scale, None


# name -> (weights, axes that share a scale, levels) -> the scale, and the threshold.
SCALES: dict[str, Callable[[jax.Array, Axes, np.ndarray], Fit]] = {
    "max": largest,
    "power": power,
    "mean": mean,
    "twn": ternary,
    "mse": least_error,
}
# The only format that a scale is meant for.
ONLY = {"mean": "binary", "twn": "ternary"}
# Those without a sum in them, which is rounded as it happens to be compiled: they are
# found anew wherever they are needed.
EXACT = ("max", "power")
