"""Exactly the k smallest scores, for a k that may be traced, by bisection.

Sorting a leaf at every mask update is what makes pruning slow, and `lax.top_k` wants a
k known at compile time. The order of float32 numbers is the order of their bit patterns
read as integers, so a search over integers that only counts finds the cut exactly,
whatever k is, over one leaf or over all of them together, in about ten passes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def order(score: jax.Array) -> jax.Array:
    """Returns int32 keys in the order of the float scores; -0.0 before 0.0.

    Args:
      score: float array of any shape, compared as float32.
    """
    bits = lax.bitcast_convert_type(score.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _count(hits: Sequence[jax.Array]) -> jax.Array:
    return sum(jnp.sum(h, dtype=jnp.int32) for h in hits)


def _cut(count, removed: jax.Array, low: jax.Array, high: jax.Array):
    """Returns (m, count(m)): the least m found with `count(m) >= removed`.

    `count` never falls as m grows. The search stops early at an m where the count is
    met exactly; otherwise m is the least one, and the count is passed because of ties.

    Args:
      count: int32 -> int32.
      removed: int32 scalar, at most `count(high)`.
      low: int32 with `count(low) < removed` unless `removed` is 0.
      high: int32 above `low`.
    """

    def unfinished(state):
        low, high, _, above, _ = state
        # The distance may pass 2**31, so compare neighbours instead of subtracting.
        return (above != removed) & (low + 1 < high)

    def narrow(state):
        low, high, below, above, turn = state
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        # Counts grow smoothly where weights are dense, so a straight line through
        # both ends lands close; every third step halves, whatever the shape.
        share = (removed - below).astype(jnp.float32) / (above - below)
        width = high.astype(jnp.float32) - low.astype(jnp.float32)
        guess = low + jnp.minimum(share * width, 2.0**30).astype(jnp.int32)
        m = jnp.where(turn % 3 == 2, middle, jnp.clip(guess, low + 1, high - 1))
        here = count(m)
        enough = here >= removed
        return (
            jnp.where(enough, low, m),
            jnp.where(enough, m, high),
            jnp.where(enough, below, here),
            jnp.where(enough, here, above),
            turn + 1,
        )

    start = (low, high, jnp.int32(0), count(high), jnp.int32(0))
    _, high, _, above, _ = lax.while_loop(unfinished, narrow, start)
    return high, above


@jax.jit  # or each mask made outside of a jitted step would be compiled anew
def keep_all_but(scores: Sequence[jax.Array], removed: jax.Array) -> list[jax.Array]:
    """Returns masks that drop exactly the `removed` smallest of all scores together.

    Args:
      scores: float arrays of any shapes, ranked as one list in the given order.
      removed: int32 scalar in `[0, total size]`; may be traced.

    Returns:
      bool arrays of the scores' shapes, True = keep. Of equal scores those that
      stand first, in row-major order, are kept.
    """
    keys = [order(s) for s in scores]
    removed = jnp.asarray(removed, jnp.int32)
    least = jnp.min(jnp.stack([jnp.min(k) for k in keys]))
    most = jnp.max(jnp.stack([jnp.max(k) for k in keys]))
    threshold, dropped = _cut(
        lambda m: _count([k <= m for k in keys]), removed, least - 1, most
    )

    def by_score(_):
        return [k > threshold for k in keys]

    def by_place(surplus):
        # More scores equal the threshold than have to go: the first ones stay.
        starts = [sum(k.size for k in keys[:i]) for i in range(len(keys))]
        places = [
            start + jnp.arange(k.size, dtype=jnp.int32).reshape(k.shape)
            for start, k in zip(starts, keys, strict=True)
        ]
        tied = [
            jnp.where(k == threshold, p, -1) for k, p in zip(keys, places, strict=True)
        ]
        last, _ = _cut(
            lambda m: _count([(t >= 0) & (t <= m) for t in tied]),
            surplus,
            jnp.int32(-1),
            jnp.int32(sum(k.size for k in keys)),
        )
        return [
            (k > threshold) | ((t >= 0) & (t <= last))
            for k, t in zip(keys, tied, strict=True)
        ]

    surplus = dropped - removed
    masks = lax.cond(surplus > 0, by_place, by_score, surplus)
    return [m | (removed == 0) for m in masks]
