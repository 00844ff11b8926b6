"""A streaming histogram: what all calibrations that clip keep of a tensor.

Its size is fixed, whatever it has seen. The bins reach to a power of two, so a batch
that goes further doubles their width: two neighbours become one, and every value lies
in the bin it would have been counted in had the range been known from the start. So
`merge` is exact, and neither the order nor the size of the batches matters.

Zero is the border between the two sides, and exact zeros (what a ReLU gives) are
counted apart: they lie on every grid and lose nothing, whatever the range.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BINS = 2048  # on each side of zero; between half and all of them reach the extreme

_LOG_BINS = BINS.bit_length() - 1
_LIMB = 20  # bits of the lower limb: as many as 2**12 of them add up in 32 bits
_LEAST = -100  # exponent below which bins do not shrink; keeps powers of two normal


class Histogram(NamedTuple):
    """Counts of the values of one tensor, exact up to 2**52 of them.

    Counts are whole numbers in two limbs, `low + 2**20 * high`, as JAX has no 64 bits
    by default; the first axis of `counts` and `zeros` is `(low, high)`.

    Attributes:
      exponent: int32 scalar; the bins reach from -2**exponent to 2**exponent, the least
        such power (at least 2**-100) that covers all values.
      counts: uint32 `[2, 2, BINS]`, axis 1 the side (negative, positive). Bin k of a
        side counts magnitudes in `(k, k + 1] * width`: open towards zero.
      zeros: uint32 `[2]`, how many values are 0. Subnormal ones may count as 0.
      smallest: float32 scalar, the least value.
      largest: float32 scalar, the greatest.
    """

    exponent: jax.Array
    counts: jax.Array
    zeros: jax.Array
    smallest: jax.Array
    largest: jax.Array


def count(x: jax.Array) -> Histogram:
    """Returns the histogram of one batch.

    Args:
      x: any shape with 1 to 2**32 - 1 elements, real floating point; taken as float32.
        NaN and infinity count as 0: whoever calls says so (`calibrate` does).
    """
    x = x.astype(jnp.float32)
    x = jnp.where(jnp.isfinite(x), x, 0)
    smallest, largest = jnp.min(x), jnp.max(x)
    exponent = _exponent(jnp.maximum(-smallest, largest))
    # A product with a power of two is exact, so each value meets its border exactly.
    scaled = jnp.ceil(jnp.abs(x) * _power(_LOG_BINS - exponent)).astype(jnp.int32)
    place = jnp.clip(scaled, 1, BINS) - 1 + jnp.where(x > 0, BINS, 0)
    place = jnp.where(x == 0, 2 * BINS, place)  # is dropped
    counts = jnp.zeros(2 * BINS, jnp.uint32)
    counts = counts.at[place.ravel()].add(1, mode="drop").reshape(2, BINS)
    zeros = jnp.uint32(x.size) - jnp.sum(counts, dtype=jnp.uint32)
    return Histogram(exponent, _split(counts), _split(zeros), smallest, largest)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """Returns the histogram of what either has seen."""
    exponent = jnp.maximum(a.exponent, b.exponent)

    def widened(h):
        halvings = jnp.minimum(exponent - h.exponent, _LOG_BINS)
        place = jnp.arange(BINS) >> halvings
        return jnp.zeros_like(h.counts).at[..., place].add(h.counts)

    return Histogram(
        exponent,
        carry(widened(a) + widened(b)),
        carry(a.zeros + b.zeros),
        jnp.minimum(a.smallest, b.smallest),
        jnp.maximum(a.largest, b.largest),
    )


def width(h: Histogram) -> jax.Array:
    """Returns the width of a bin: a power of two, float32 scalar."""
    return _power(h.exponent - _LOG_BINS)


def ends(h: Histogram) -> tuple[jax.Array, jax.Array]:
    """Returns the least and the greatest value, and 0, in widths of a bin.

    Two float32 scalars, the first in `[-BINS, 0]` and the second in `[0, BINS]`.
    """
    per_width = _power(_LOG_BINS - h.exponent)
    low, high = h.smallest * per_width, h.largest * per_width
    return jnp.minimum(low, 0), jnp.maximum(high, 0)


def line(h: Histogram, *, folded: bool) -> tuple[jax.Array, int]:
    """Returns the counts as limbs in the order of the values, and the place of zero.

    Args:
      h: the histogram; its zeros are left out.
      folded: True for magnitudes, uint32 `[2, BINS]` from zero on; False for both
        sides, uint32 `[2, 2 * BINS]`.
    """
    negative, positive = h.counts[:, 0], h.counts[:, 1]
    if folded:
        return carry(negative + positive), 0
    return jnp.concatenate([negative[:, ::-1], positive], axis=1), BINS


def whole(limbs: jax.Array) -> jax.Array:
    """Returns counts as float32, exact below 2**24; the limbs are the first axis."""
    return limbs[0].astype(jnp.float32) + limbs[1].astype(jnp.float32) * 2.0**_LIMB


def carry(limbs: jax.Array) -> jax.Array:
    """Returns the same counts with lower limbs below 2**20; limbs are the first axis.

    The lower limbs may come from adding at most 2**12 such.
    """
    low, high = limbs
    return jnp.stack([low & (2**_LIMB - 1), high + (low >> _LIMB)])


def _split(counts: jax.Array) -> jax.Array:
    """Returns uint32 counts as limbs, on a new first axis."""
    return carry(jnp.stack([counts, jnp.zeros_like(counts)]))


def _exponent(extreme: jax.Array) -> jax.Array:
    """Returns the least n of at least -100 with `extreme <= 2**n`, as int32."""
    bits = lax.bitcast_convert_type(extreme, jnp.int32)
    beyond = (bits & (2**23 - 1)) != 0  # of the power of two that the exponent says
    return jnp.maximum((bits >> 23) - 127 + beyond, _LEAST)


def _power(exponent: jax.Array) -> jax.Array:
    """Returns 2**exponent for whole exponents from -126 to 127, exactly."""
    # exp2 is not exact on every backend.
    return lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)
