"""Where pixels lie: moves, mirrors, turns, magnification, crops."""

from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.data.augment import base


def shift(*, pixels: int, fill: str) -> base.Augmentation:
    """Moves the image by up to `pixels` rows and columns, all moves equally likely."""
    if not isinstance(pixels, int) or pixels < 0:
        raise errors.UserError(f"shift.pixels must be a whole number, got {pixels!r}")
    mode, _ = errors.lookup(base.FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode)
        return pix.random_crop(key, padded, image.shape)

    return augment


def flip(*, probability: float) -> base.Augmentation:
    """Mirrors left and right with a probability in [0, 1]."""
    base.check("flip.probability", probability, 0, 1)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return pix.random_flip_left_right(key, image, probability=probability)

    return augment


def rotate(*, degrees: float, fill: str) -> base.Augmentation:
    """Turns the image about its centre by an angle uniform in [-degrees, degrees]."""
    base.check("rotate.degrees", degrees, 0, 180)
    _, mode = errors.lookup(base.FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return turn(image, jnp.deg2rad(base.between(key, degrees)), mode)

    return augment


def scale(*, fraction: float, fill: str) -> base.Augmentation:
    """Magnifies about the centre by a factor uniform in 1 ± fraction."""
    base.check("scale.fraction", fraction, 0, 0.9)
    _, mode = errors.lookup(base.FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return magnify(image, 1 + base.between(key, fraction), mode)

    return augment


def crop(*, area: float, aspect: float) -> base.Augmentation:
    """Cuts a part out and magnifies it to the size of the whole.

    The part takes a share of the area uniform in [area, 1] and is wider than the whole,
    in proportion to its height, by a factor whose logarithm is uniform between those of
    1/aspect and aspect; a side longer than the image's becomes the image's. (Szegedy et
    al. 2015, arXiv 1409.4842, section 6, take areas from 0.08 and a factor of up to
    4/3.) All places where it fits are equally likely, between pixels, too; bilinear.

    Args:
      area: the least share of the area, in (0, 1]; 1, with an aspect of 1, keeps all.
      aspect: the largest factor, at least 1.
    """
    base.check("crop.area", area, 0, 1, low_open=True)
    base.check("crop.aspect", aspect, 1, 10)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        of_area, of_aspect, of_place = jax.random.split(key, 3)
        share = jax.random.uniform(of_area, minval=area, maxval=1)
        factor = jnp.exp(base.between(of_aspect, jnp.log(aspect)))
        sides = jnp.stack([jnp.sqrt(share / factor), jnp.sqrt(share * factor)])
        sides = jnp.minimum(sides, 1)
        starts = jax.random.uniform(of_place, (2,)) * (1 - sides)
        return part(image, starts, sides)

    return augment


def turn(image: jax.Array, angle: jax.Array | float, mode: str) -> jax.Array:
    """Turns [H, W, C] about its centre by `angle` radians, counter-clockwise."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return warp(image, ((c, s), (-s, c)), mode)


def magnify(image: jax.Array, factor: jax.Array | float, mode: str) -> jax.Array:
    """Magnifies [H, W, C] about its centre by `factor` > 0."""
    return warp(image, ((1 / factor, 0), (0, 1 / factor)), mode)


def part(image: jax.Array, starts: jax.Array, sides: jax.Array) -> jax.Array:
    """Returns a part of [H, W, C], magnified bilinearly to [H, W, C].

    Not by dm_pix, whose crops have a fixed size.

    Args:
      image: `[H, W, C]`.
      starts: `[2]`, where the part begins, from above and from the left, as shares of
        the image's sides.
      sides: `[2]`, its height and width as such shares, in (0, 1].
    """
    sizes = jnp.array(image.shape[:2], jnp.float32)
    return jax.image.scale_and_translate(
        image,
        image.shape,
        (0, 1),
        1 / sides,
        -starts * sizes / sides,
        "linear",
        antialias=False,  # it never shrinks
    )


def warp(
    image: jax.Array, matrix: Any, mode: str, move: tuple[Any, Any] = (0, 0)
) -> jax.Array:
    """Samples bilinearly at `matrix @ (p - centre) + centre + move` for each pixel p.

    By JAX's `map_coordinates` rather than dm_pix's `affine_transform`, which samples
    between channels too (on a CPU 20 times slower for 28x28 images), and which blackens
    what falls outside by a rounding error: the whole edge, after a turn by 90 degrees.

    Args:
      image: `[H, W, C]`.
      matrix: 2x2, of rows and columns, may be traced.
      mode: of `map_coordinates`, what is outside of the picture.
      move: rows and columns, may be traced.
    """
    (a, b), (c, d) = matrix
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - middle_y, x - middle_x
    at = [a * y + b * x + (middle_y + move[0]), c * y + d * x + (middle_x + move[1])]

    def sample(channel: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(channel, at, order=1, mode=mode)

    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)
