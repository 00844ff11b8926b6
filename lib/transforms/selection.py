"""Exactly the k smallest scores, for a k that may be traced, by bisection.

Sorting a leaf at every mask update is what makes pruning slow, and `lax.top_k` wants a
k known at compile time. The order of float32 numbers is the order of their bit patterns
read as integers, so a search over integers that only counts finds the cut exactly,
whatever k is, over one leaf or over all of them together. A sorted sample says where
to look, and straight lines close in from there: about eight passes that only count.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

# How many scores are sorted to begin with: 0.03 ms, and it saves half of the passes.
_SAMPLE = 1024

# Rows in which `count` adds up: few enough for int8 sums, which XLA vectorises. On a
# CPU this counts ten times faster than one sum over a matrix.
_ROWS = 32


def order(score: jax.Array) -> jax.Array:
    """Returns int32 keys in the order of the float scores; -0.0 before 0.0.

    Args:
      score: float array of any shape, compared as float32.
    """
    bits = lax.bitcast_convert_type(score.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _score(key: jax.Array) -> jax.Array:
    """Returns the float32 score of a key: `order` backwards."""
    bits = jnp.where(key < 0, key ^ 0x7FFFFFFF, key)
    return lax.bitcast_convert_type(bits, jnp.float32)


def count(hits: jax.Array) -> jax.Array:
    """Returns how many elements of a bool array are True, an int32 scalar."""
    flat = hits.reshape(-1)
    whole = flat.size // _ROWS * _ROWS
    columns = jnp.sum(flat[:whole].reshape(_ROWS, -1), axis=0, dtype=jnp.int8)
    rest = jnp.sum(flat[whole:], dtype=jnp.int32)
    return jnp.sum(columns, dtype=jnp.int32) + rest


def _total(hits: Sequence[jax.Array]) -> jax.Array:
    return sum(count(h) for h in hits)


Ends = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # low, high and their counts


def _cut(counted: Callable, between: Callable, removed: jax.Array, ends: Ends):
    """Returns (m, counted(m)): the least m found with `counted(m) >= removed`.

    `counted` never falls as m grows. The search stops early at an m where the count is
    met exactly; otherwise m is the least one, and the count is passed because of ties.

    Args:
      counted: int32 -> int32.
      between: (low, high, share) -> int32; guesses the m that has this share, a
        float32 in [0, 1], of what is counted from low to high.
      removed: int32 scalar, at most `counted(high)`.
      ends: (low, high, counted(low), counted(high)), with low < high and
        `counted(low) < removed` unless `removed` is 0.
    """

    def unfinished(state):
        low, high, _, above, _ = state
        # The distance may pass 2**31, so compare neighbours instead of subtracting.
        return (above != removed) & (low + 1 < high)

    def narrow(state):
        low, high, below, above, turn = state
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        # A straight line through both ends lands close where counts grow smoothly;
        # every third step halves, whatever the shape.
        guess = between(
            low, high, (removed - below).astype(jnp.float32) / (above - below)
        )
        m = jnp.where(turn % 3 == 2, middle, jnp.clip(guess, low + 1, high - 1))
        here = counted(m)
        enough = here >= removed
        return (
            jnp.where(enough, low, m),
            jnp.where(enough, m, high),
            jnp.where(enough, below, here),
            jnp.where(enough, here, above),
            turn + 1,
        )

    _, high, _, above, _ = lax.while_loop(unfinished, narrow, (*ends, jnp.int32(0)))
    return high, above


def _sampled(keys: Sequence[jax.Array], counted: Callable, removed: jax.Array) -> Ends:
    """Returns ends around the key that `removed` keys do not pass, close if it can."""
    size = sum(k.size for k in keys)
    step = max(1, size // _SAMPLE)
    sample = jnp.sort(jnp.concatenate([k.reshape(-1)[::step] for k in keys]))
    share = removed.astype(jnp.float32) / size
    place = share * sample.size
    # Three deviations of the number of sampled keys below the cut, each way.
    slack = 1 + 3 * jnp.sqrt(place * (1 - share))
    last = sample.size - 1
    low = sample[jnp.clip((place - slack).astype(jnp.int32), 0, last)] - 1
    high = sample[jnp.clip((place + slack).astype(jnp.int32), 0, last)]
    below, above = counted(low), counted(high)

    def outside(_):
        """A sample that misleads costs passes, never the result."""
        least = jnp.min(jnp.stack([jnp.min(k) for k in keys])) - 1
        most = jnp.max(jnp.stack([jnp.max(k) for k in keys]))
        return (
            jnp.where(below < removed, high, least),
            jnp.where(below < removed, most, low),
            jnp.where(below < removed, above, 0),
            jnp.where(below < removed, size, below),
        )

    inside = (below < removed) & (removed <= above) | (removed == 0)
    return lax.cond(inside, lambda ends: ends, outside, (low, high, below, above))


def _between_keys(low: jax.Array, high: jax.Array, share: jax.Array) -> jax.Array:
    """Guesses in scores: their density is smooth, that of their keys is not."""
    start, end = _score(low), _score(high)
    return order(start + share * (end - start))


def _between_places(low: jax.Array, high: jax.Array, share: jax.Array) -> jax.Array:
    return low + (share * (high - low)).astype(jnp.int32)


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

    def counted(m):
        return _total([k <= m for k in keys])

    ends = _sampled(keys, counted, removed)
    threshold, dropped = _cut(counted, _between_keys, removed, ends)

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

        def first(m):
            return _total([(t >= 0) & (t <= m) for t in tied])

        end = jnp.int32(sum(k.size for k in keys))
        ends = (jnp.int32(-1), end, jnp.int32(0), first(end))
        last, _ = _cut(first, _between_places, surplus, ends)
        return [
            (k > threshold) | ((t >= 0) & (t <= last))
            for k, t in zip(keys, tied, strict=True)
        ]

    surplus = dropped - removed
    masks = lax.cond(surplus > 0, by_place, by_score, surplus)
    return [m | (removed == 0) for m in masks]


def keep_in_groups(score: jax.Array, removed: jax.Array, size: int) -> jax.Array:
    """Returns the mask that drops the `removed` lowest scores of every group.

    Args:
      score: `[..., inputs, out]` float; `size` neighbours along the flattened inputs
        (all axes but the last) make a group, of each output on its own.
      removed: int32 scalar in `[0, size]`; may be traced.
      size: length of a group; divides the number of inputs.

    Returns:
      bool of the score's shape, True = keep. Of equal scores those that stand first
      are kept.
    """
    keys = order(score).reshape(-1, size, score.shape[-1])
    place = jnp.arange(size)
    first = (place[:, None] < place[None, :])[None, :, :, None]
    other, mine = keys[:, :, None, :], keys[:, None, :, :]
    # Comparing all pairs is fused; sorting short groups would not be.
    ahead = (other > mine) | ((other == mine) & first)
    return (jnp.sum(ahead, axis=1) < size - removed).reshape(score.shape)
