"""Ranges of weights for a grid: all of them, or the share that rounds best."""

import jax
import jax.numpy as jnp
from jax import lax

from lib import numerics

SHARES = 32  # of the full range that are tried


def full(
    w: jax.Array, axes: tuple[int, ...], *, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the smallest and largest of each scale's weights and 0.

    Symmetric: `-max|w|` and `max|w|`. The `axes` that share a scale have length 1.
    """
    if symmetric:  # one pass over the weights instead of two
        most = jnp.max(jnp.abs(w), axis=axes, keepdims=True)
        return -most, most
    least, most = (f(w, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
    return jnp.minimum(least, 0), jnp.maximum(most, 0)


def least_error(
    w: jax.Array, axes: tuple[int, ...], bits: int | jax.Array, *, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the share of the full range whose grid has the least squared error.

    Both ends are multiplied by k / SHARES for k = SHARES, ..., 1, for each scale on its
    own, and what is clipped counts like what is rounded: the search of GPTQ's code
    (Frantar et al. 2022, arXiv 2210.17323), there with the power 2.4 and steps of 1 %.
    Of equals the widest wins; so does the full range where weights are not finite.

    Args:
      w: float32 or bfloat16.
      axes: that share one scale.
      bits: 2 to 8; may be traced.
      symmetric: of the grid, as in `numerics.grid`.

    Returns:
      The smallest and largest value, of w's dtype; `axes` have length 1.
    """
    ends = full(w, axes, symmetric=symmetric)
    most = jnp.maximum(-ends[0], ends[1]).astype(jnp.float32)
    unit = jnp.where(most > 0, most, 1)  # lest squares overflow

    def attempt(best, share):
        tried = tuple((x * share).astype(w.dtype) for x in ends)
        grid = numerics.grid(*tried, bits, symmetric=symmetric)
        off = (numerics.fake_quant(w, grid) - w).astype(jnp.float32) / unit
        error = jnp.sum(jnp.square(off), axis=axes, keepdims=True)
        better = error < best[0]
        new = (error, *tried)
        return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, best), None

    start = (jnp.full_like(unit, jnp.inf), *ends)
    shares = jnp.arange(SHARES, 0, -1, dtype=jnp.float32) / SHARES
    (_, smallest, largest), _ = lax.scan(attempt, start, shares)
    return smallest, largest
