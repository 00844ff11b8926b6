"""Random distortions of training images, on the device, inside the jitted step.

An augmentation is a function `(key, image) -> image` of one float32 [H, W, C] image of
raw pixels; `chain` composes them and `on_batch` lifts the result to a batch, with a key
of its own for each example. They come before normalisation, so that what moves into
view from outside the picture is a pixel of 0, the background, and not the mean.

A strength of zero is the identity, bit for bit. Strengths other than `shift`'s may be
traced values, so that a vmapped run sweeps them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from lib import errors

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]

# What lies outside the picture: pixels of 0, or the nearest pixel of its edge.
# Name -> mode of jnp.pad, mode of map_coordinates.
FILLS = {"zero": ("constant", "constant"), "edge": ("edge", "nearest")}


def shift(*, pixels: int, fill: str) -> Augmentation:
    """Moves the image by up to `pixels` rows and columns, all moves equally likely."""
    if not isinstance(pixels, int) or pixels < 0:
        raise errors.UserError(f"shift.pixels must be a whole number, got {pixels!r}")
    mode, _ = errors.lookup(FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode)
        return pix.random_crop(key, padded, image.shape)

    return augment


def flip(*, probability: float) -> Augmentation:
    """Mirrors left and right with a probability in [0, 1]."""
    _check("flip.probability", probability, 0, 1)

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return pix.random_flip_left_right(key, image, probability=probability)

    return augment


def rotate(*, degrees: float, fill: str) -> Augmentation:
    """Turns the image about its centre by an angle uniform in [-degrees, degrees]."""
    _check("rotate.degrees", degrees, 0, 180)
    _, mode = errors.lookup(FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        angle = jnp.deg2rad(degrees * jax.random.uniform(key, minval=-1, maxval=1))
        return turn(image, angle, mode)

    return augment


def scale(*, fraction: float, fill: str) -> Augmentation:
    """Magnifies about the centre by a factor uniform in 1 ± fraction."""
    _check("scale.fraction", fraction, 0, 0.9)
    _, mode = errors.lookup(FILLS, fill, "fill")

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        factor = 1 + fraction * jax.random.uniform(key, minval=-1, maxval=1)
        return magnify(image, factor, mode)

    return augment


# Name in a config -> factory, fed with the settings that stand under that name.
AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "shift": shift,
    "flip": flip,
    "rotate": rotate,
    "scale": scale,
}


def build(
    names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> Augmentation:
    """Returns the chain of the named augmentations, each with `settings[name]`."""
    return chain(
        *(
            errors.lookup(AUGMENTATIONS, name, "augmentation")(**settings[name])
            for name in names
        )
    )


def chain(*augmentations: Augmentation) -> Augmentation:
    """Returns the augmentation that applies each in turn; of none, the identity."""

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        for i, step in enumerate(augmentations):
            image = step(jax.random.fold_in(key, i), image)
        return image

    return augment


def on_batch(
    augmentation: Augmentation,
) -> Callable[[jax.Array, jax.Array, jax.Array | int], jax.Array]:
    """Returns `(key, images [B, H, W, C], first) -> images` of a one-image function.

    Example i has the key `fold_in(key, first + i)`: what happens to it depends on its
    position in the batch alone. A device that holds only a part of the batch, from
    position `first` on, so does to that part what one device does to the whole.
    """

    def augment(key: jax.Array, images: jax.Array, first: jax.Array | int) -> jax.Array:
        positions = first + jnp.arange(images.shape[0])
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)
        return jax.vmap(augmentation)(keys, images)

    return augment


def turn(image: jax.Array, angle: jax.Array | float, mode: str) -> jax.Array:
    """Turns [H, W, C] about its centre by `angle` radians, counter-clockwise."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return _warp(image, ((c, s), (-s, c)), mode)


def magnify(image: jax.Array, factor: jax.Array | float, mode: str) -> jax.Array:
    """Magnifies [H, W, C] about its centre by `factor` > 0."""
    return _warp(image, ((1 / factor, 0), (0, 1 / factor)), mode)


def _warp(image: jax.Array, matrix: Any, mode: str) -> jax.Array:
    """Samples bilinearly at `matrix @ (p - centre) + centre` for each pixel p.

    By JAX's `map_coordinates` rather than dm_pix's `affine_transform`, which samples
    between channels too (on a CPU 20 times slower for 28x28 images), and which blackens
    what falls outside by a rounding error: the whole edge, after a turn by 90 degrees.
    """
    (a, b), (c, d) = matrix
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - middle_y, x - middle_x
    at = [a * y + b * x + middle_y, c * y + d * x + middle_x]

    def sample(channel: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(channel, at, order=1, mode=mode)

    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def _check(name: str, value: Any, low: float, high: float) -> None:
    """Refuses a strength out of range; a traced one cannot be looked at."""
    if not isinstance(value, jax.core.Tracer) and not low <= value <= high:
        raise errors.UserError(f"{name} must lie in [{low}, {high}], got {value}")
