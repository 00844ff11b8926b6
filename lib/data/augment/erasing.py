"""Rectangles taken out of the picture: cutout and random erasing."""

import jax
import jax.numpy as jnp

from lib import errors
from lib.data.augment import base

# What fills the hole: (key, image, white) -> pixels that broadcast to the image.
# Black; the image's own mean, which leaves the network's inputs centred, as the zeros
# of cutout do that are written after normalisation; or noise, as in random erasing.
HOLES = {
    "zero": lambda key, image, white: jnp.zeros_like(image),
    "mean": lambda key, image, white: jnp.mean(image, axis=(0, 1), keepdims=True),
    "noise": lambda key, image, white: jax.random.uniform(
        key, image.shape, image.dtype, 0, white
    ),
}


def cutout(*, pixels: int, fill: str) -> base.Augmentation:
    """Takes out a square whose centre is any pixel, all equally likely.

    DeVries and Taylor 2017, arXiv 1708.04552, section 3.1. What of the square falls
    outside of the picture is lost. An even side has its centre right of and below its
    middle.

    Args:
      pixels: side of the square.
      fill: "zero" or "mean"; see `HOLES`.
    """
    base.check("cutout.pixels", pixels, 0, float("inf"))
    holes = {k: v for k, v in HOLES.items() if k != "noise"}
    filler = errors.lookup(holes, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        sides = jnp.array(image.shape[:2])
        centre = jax.random.randint(key, (2,), 0, sides)
        hole = inside(image, centre - pixels // 2, jnp.full(2, pixels))
        return jnp.where(hole, filler(key, image, None), image)

    return augment


def erase(
    *,
    probability: float,
    smallest: float,
    largest: float,
    aspect: float,
    fill: str,
    white: float,
) -> base.Augmentation:
    """Takes out a rectangle that lies wholly inside of the picture.

    Zhong et al. 2017, arXiv 1708.04896, algorithm 1, but that a side which comes out
    longer than the picture's is cut to it, where the paper draws again.

    Args:
      probability: that there is one, in [0, 1].
      smallest: least share of the area, in [0, 1].
      largest: largest share; uniform between the two.
      aspect: largest ratio of height to width or of width to height, at least 1;
        log-uniform.
      fill: a key of `HOLES`; "noise" in the paper.
      white: the brightest pixel of the noise.
    """
    base.check("erase.probability", probability, 0, 1)
    base.check("erase.smallest", smallest, 0, 1)
    base.check("erase.largest", largest, 0, 1)
    base.check("erase.aspect", aspect, 1, 10)
    if not isinstance(smallest, jax.core.Tracer):
        base.check("erase.largest", largest, smallest, 1)
    base.check("erase.white", white, 0, 255, low_open=True)
    filler = errors.lookup(HOLES, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        of_coin, of_area, of_aspect, of_place, of_fill = jax.random.split(key, 5)
        height, width, _ = image.shape
        share = jax.random.uniform(of_area, minval=smallest, maxval=largest)
        factor = jnp.exp(base.between(of_aspect, jnp.log(aspect)))
        area = share * height * width
        sides = jnp.stack([jnp.sqrt(area * factor), jnp.sqrt(area / factor)])
        limits = jnp.array([height, width])
        sides = jnp.minimum(jnp.round(sides).astype(int), limits)
        starts = jax.random.randint(of_place, (2,), 0, limits - sides + 1)
        hole = inside(image, starts, sides)
        hole &= jax.random.bernoulli(of_coin, probability)
        return jnp.where(hole, filler(of_fill, image, white), image)

    return augment


def inside(image: jax.Array, starts: jax.Array, sides: jax.Array) -> jax.Array:
    """Returns bool [H, W, 1]: the pixels of a rectangle; may reach out of the picture.

    Args:
      image: `[H, W, C]`, for its shape.
      starts: int `[2]`, the first row and column.
      sides: int `[2]`, rows and columns.
    """
    (top, left), (height, width) = starts, sides
    y = jnp.arange(image.shape[0])[:, None, None]
    x = jnp.arange(image.shape[1])[None, :, None]
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
