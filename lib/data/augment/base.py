"""What every augmentation is made of: keys, the edge of the picture, strengths.

An augmentation is a function `(key, image) -> image` of one float32 [H, W, C] image of
raw pixels. A strength of 0 is the identity, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lib import errors

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]

# What lies outside the picture: pixels of 0, or the nearest pixel of its edge.
# Name -> mode of jnp.pad, mode of map_coordinates.
FILLS = {"zero": ("constant", "constant"), "edge": ("edge", "nearest")}


def chain(*augmentations: Augmentation) -> Augmentation:
    """Returns the augmentation that applies each in turn; of none, the identity."""

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        for i, step in enumerate(augmentations):
            image = step(jax.random.fold_in(key, i), image)
        return image

    return augment


def keys(key: jax.Array, count: int, first: jax.Array | int) -> jax.Array:
    """Returns the keys `fold_in(key, first + i)` of `count` examples."""
    positions = first + jnp.arange(count)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)


def on_batch(
    augmentation: Augmentation,
) -> Callable[[jax.Array, jax.Array, jax.Array | int], jax.Array]:
    """Returns `(key, images [B, H, W, C], first) -> images` of a one-image function.

    Example i has the key `fold_in(key, first + i)`: what happens to it depends on its
    position in the batch alone. A device that holds only a part of the batch, from
    position `first` on, so does to that part what one device does to the whole.
    """

    def augment(key: jax.Array, images: jax.Array, first: jax.Array | int) -> jax.Array:
        return jax.vmap(augmentation)(keys(key, images.shape[0], first), images)

    return augment


def between(key: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Returns a number uniform in [-strength, strength]."""
    return strength * jax.random.uniform(key, minval=-1, maxval=1)


def check(
    name: str, value: Any, low: float, high: float, *, low_open: bool = False
) -> None:
    """Raises a `UserError` for a strength out of range; a traced one is not looked at.

    Args:
      name: of the setting, for the message ("rotate.degrees").
      value: what a config gave.
      low: the least that is valid.
      high: the most that is valid.
      low_open: whether `low` itself is not.
    """
    if isinstance(value, jax.core.Tracer):
        return
    if not low <= value <= high or (low_open and value == low):
        bracket = "(" if low_open else "["
        raise errors.UserError(
            f"{name} must lie in {bracket}{low}, {high}], got {value}"
        )
