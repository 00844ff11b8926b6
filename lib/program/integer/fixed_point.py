"""Scales without floating point: a multiplier of 31 bits and a shift, in int32 only.

Jacob et al. 2018 (arXiv 1712.05877, section 2.2 and eq. 6): a real scale is
`2**-shift * m0`, with `m0` in [0.5, 1) held as an int32 of 31 fractional bits. The
roundings are those of gemmlowp, to the bit: a saturating, rounding, doubling high
product, then a rounding shift to the right. JAX has no int64 unless it is switched on,
so the product of 64 bits is made of parts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_HIGHEST, _LOWEST = np.int32(2**31 - 1), np.int32(-(2**31))
MOST_SHIFT = 31  # beyond it, every int32 rounds to 0 or saturates


def multiplier(scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns `(m0, shift)`, both int32, with `scale = m0 * 2**(-31 - shift)`.

    Exact for every normal float32: 24 bits fit into 31.

    Args:
      scale: positive float32, any shape.
    """
    fraction, exponent = jnp.frexp(scale.astype(jnp.float32))
    return jnp.ldexp(fraction, 31).astype(jnp.int32), -exponent.astype(jnp.int32)


def high_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `floor(a * b / 2**31 + 1/2)` of int32, where -2**31 squared saturates.

    gemmlowp's SaturatingRoundingDoublingHighMul.
    """
    a, b = jnp.broadcast_arrays(a, b)
    a_high, b_high = a >> 16, b >> 16
    a_low, b_low = a & 0xFFFF, b & 0xFFFF  # not negative

    def unsigned(x):
        return lax.bitcast_convert_type(x, jnp.uint32)

    lowest = unsigned(a_low) * unsigned(b_low)
    first = a_high * b_low + lax.bitcast_convert_type(lowest >> 16, jnp.int32)
    second = a_low * b_high + (first & 0xFFFF)
    high = a_high * b_high + (first >> 16) + (second >> 16)
    low = unsigned(second) << 16 | lowest & 0xFFFF
    rounded = low + jnp.uint32(2**30)
    carry = (rounded < low).astype(jnp.int32)
    top = lax.bitcast_convert_type(rounded >> 31, jnp.int32)
    product = jnp.left_shift(high + carry, 1) | top
    return jnp.where((a == _LOWEST) & (b == _LOWEST), _HIGHEST, product)


def shift_right(x: jax.Array, by: jax.Array) -> jax.Array:
    """Returns int32 `x / 2**by` to the nearest, halves away from 0; `by` in [0, 31].

    gemmlowp's RoundingDivideByPOT.
    """
    mask = lax.bitcast_convert_type(
        jnp.left_shift(jnp.uint32(1), by.astype(jnp.uint32)) - jnp.uint32(1), jnp.int32
    )
    threshold = (mask >> 1) + (x < 0)
    return (x >> by) + ((x & mask) > threshold)


def shift_left(x: jax.Array, by: jax.Array) -> jax.Array:
    """Returns int32 `x * 2**by`, saturated; `by` in [0, 31]."""
    most = _HIGHEST >> by
    wide = jnp.left_shift(x, by)
    saturated = jnp.where(x > 0, _HIGHEST, _LOWEST)
    return jnp.where((x > most) | (x < -most - 1), saturated, wide)


def scaled(acc: jax.Array, m0: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns the whole number next to `acc * m0 * 2**(-31 - shift)`, int32.

    Within 1 of it: two roundings of half a unit each. Arguments broadcast.

    Args:
      acc: int32.
      m0: int32 in [2**30, 2**31).
      shift: int32; taken as at most 31 to either side. To the left, `acc` is shifted
        first, and saturates.
    """
    shift = jnp.clip(shift, -MOST_SHIFT, MOST_SHIFT)
    acc, m0, shift = jnp.broadcast_arrays(acc, m0, shift)
    product = high_product(shift_left(acc, jnp.maximum(-shift, 0)), m0)
    return shift_right(product, jnp.maximum(shift, 0))


def requantize(
    acc: jax.Array,
    m0: jax.Array,
    shift: jax.Array,
    zero_point: jax.Array,
    low: int,
    high: int,
) -> jax.Array:
    """Returns the codes, int32 in `[low, high]`, of what a contraction summed up.

    `clip(scaled(acc, m0, shift) + zero_point, low, high)`: Jacob et al., section 2.4,
    where the scale is `input * weight / output`. A relu is `low = zero_point`.
    """
    zero_point = jnp.asarray(zero_point, jnp.int32)
    # Clipped before the sum, which could overflow.
    whole = scaled(acc, m0, shift)
    return jnp.clip(whole, low - zero_point, high - zero_point) + zero_point


def rescale(acc: jax.Array, scale: jax.Array, spare: int) -> jax.Array:
    """Returns float32 `acc * scale`, multiplied in int32.

    The product is rounded once, in steps of `2**exponent(scale) / 2**spare`: within
    `scale * 2**-spare` of `acc * scale`, then rounded to float32.

    Args:
      acc: int32 with at most `31 - spare` bits beside the sign.
      scale: positive float32 that broadcasts against it.
      spare: how far `acc` may be shifted to the left, 0 to 30.
    """
    m0, shift = multiplier(scale)
    whole = high_product(jnp.left_shift(acc, spare), m0)
    return jnp.ldexp(whole.astype(jnp.float32), -shift - spare)
