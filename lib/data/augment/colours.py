"""Brightness, contrast, saturation and hue, as Pillow and torchvision define them.

Pixels are raw, from 0 to `white`: 255 for nearly all sets; 16 for the digits, which are
stored so. What leaves this range is clipped.

Only hue is dm_pix's. Its brightness adds where the others multiply, its contrast takes
each channel's own mean, which changes colours, its saturation goes through HSV, where
the greys of yellow and of blue are equally bright; and none of them is the identity at
1, bit for bit.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.data.augment import base

# How bright red, green and blue look: ITU-R BT.601, as in Pillow's mode "L".
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def colour(
    *, brightness: float, contrast: float, saturation: float, hue: float, white: float
) -> base.Augmentation:
    """Changes brightness, contrast, saturation and hue, in this order.

    Of a grey image, [H, W, 1], saturation and hue change nothing.

    Args:
      brightness: all pixels are multiplied by a factor uniform in 1 ± brightness; in
        [0, 1].
      contrast: distances from the mean grey, likewise.
      saturation: distances from the pixel's own grey, likewise.
      hue: the colour circle is turned by up to this share of a turn, in [0, 0.5].
      white: the brightest pixel.
    """
    base.check("colour.brightness", brightness, 0, 1)
    base.check("colour.contrast", contrast, 0, 1)
    base.check("colour.saturation", saturation, 0, 1)
    base.check("colour.hue", hue, 0, 0.5)
    base.check("colour.white", white, 0, 255, low_open=True)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        image = brighten(image, 1 + base.between(keys[0], brightness), white)
        image = sharpen_contrast(image, 1 + base.between(keys[1], contrast), white)
        image = saturate(image, 1 + base.between(keys[2], saturation), white)
        return turn_hue(image, base.between(keys[3], hue), white)

    return augment


def blend(
    image: jax.Array,
    other: jax.Array | float,
    factor: jax.Array | float,
    white: jax.Array | float,
) -> jax.Array:
    """Returns `factor * image + (1 - factor) * other`, clipped to [0, white].

    So written that a factor of 1 gives the very pixels of the image.
    """
    return jnp.clip(image + (factor - 1) * (image - other), 0, white)


def grey(image: jax.Array) -> jax.Array:
    """Returns how bright each pixel of [H, W, 1 or 3] looks, [H, W, 1]."""
    if image.shape[-1] == 1:
        return image
    return jnp.sum(_coloured(image) * LUMA.reshape(1, 1, 3), -1, keepdims=True)


def brighten(image: jax.Array, factor: jax.Array, white: float) -> jax.Array:
    """Multiplies all pixels by `factor`."""
    return blend(image, 0.0, factor, white)


def sharpen_contrast(image: jax.Array, factor: jax.Array, white: float) -> jax.Array:
    """Multiplies each pixel's distance from the mean grey of the image by `factor`."""
    return blend(image, jnp.mean(grey(image)), factor, white)


def saturate(image: jax.Array, factor: jax.Array, white: float) -> jax.Array:
    """Multiplies each pixel's distance from its own grey by `factor`."""
    if image.shape[-1] == 1:
        return image
    return blend(image, grey(image), factor, white)


def turn_hue(image: jax.Array, turns: jax.Array, white: float) -> jax.Array:
    """Turns the colour circle by `turns`: 1/3 takes red to green."""
    if image.shape[-1] == 1:
        return image
    turned = jnp.clip(pix.adjust_hue(_coloured(image), turns), 0, white)
    return jnp.where(turns == 0, image, turned)  # there and back costs a last bit


def _coloured(image: jax.Array) -> jax.Array:
    if image.shape[-1] != len(LUMA):
        raise errors.UserError(
            "augmentations of colour are for images of 1 or 3 channels, got "
            f"{image.shape[-1]}"
        )
    return image
