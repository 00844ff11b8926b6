"""Codes of 4 bits or fewer, two to a byte, unpacked inside the program."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

BITS = 4  # the most that half a byte holds


@dataclasses.dataclass(frozen=True, eq=False)
class Nibbles:
    """Whole numbers packed two to a byte, in row-major order, the low half first.

    Attributes:
      data: uint8 `[ceil(size / 2)]`; the last half of an odd size is 0.
      shape: of the numbers.
      signed: whether they are int8 in [-8, 7], in two's complement; else uint8 in
        [0, 15].
    """

    data: jax.Array | np.ndarray
    shape: tuple[int, ...]
    signed: bool


jax.tree_util.register_dataclass(Nibbles, ["data"], ["shape", "signed"])


def pack(numbers: np.ndarray) -> Nibbles:
    """Returns int8 or uint8 numbers packed.

    Raises:
      ValueError: a number does not fit 4 bits, or they are of another dtype.
    """
    numbers = np.asarray(numbers)
    signed = numbers.dtype == np.int8
    low, high = (-8, 7) if signed else (0, 15)
    if numbers.dtype not in (np.int8, np.uint8):
        raise ValueError(f"numbers to pack are int8 or uint8, not {numbers.dtype}")
    if numbers.size and not low <= numbers.min() <= numbers.max() <= high:
        raise ValueError(
            f"numbers from {numbers.min()} to {numbers.max()} do not fit 4 bits"
        )
    flat = numbers.ravel().view(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return Nibbles(flat[::2] | flat[1::2] << 4, numbers.shape, signed)


def unpack(packed: Nibbles) -> jax.Array:
    """Returns the numbers, int8 or uint8; the inverse of `pack`, and traceable."""
    data = jnp.asarray(packed.data)
    if packed.signed:  # the shift to the right copies the sign
        data = jax.lax.bitcast_convert_type(data, jnp.int8)
        low, high = jnp.right_shift(jnp.left_shift(data, 4), 4), data >> 4
    else:
        low, high = data & 15, data >> 4
    both = jnp.stack([low, high], axis=-1).reshape(-1)
    return both[: math.prod(packed.shape)].reshape(packed.shape)
