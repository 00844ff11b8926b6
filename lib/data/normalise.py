"""Images to inputs: pixels of about zero mean and unit deviation.

Measured on the training split; or, for weights that were trained elsewhere, what those
were trained with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.data import examples, splits

# A set that stays on disk is measured on this many of its examples, evenly spaced: the
# error of a channel's mean is then far below one grey level.
STREAMED_EXAMPLES = 10_000


class Normalisation(NamedTuple):
    """What makes inputs of stored images: `input = (pixel - mean) / std`, per channel.

    An `inputs.Inputs`.

    Both are in the units of the stored pixels (0 to 255, or 0 to 16 for the digits), so
    there is no other scale to remember: `(x/255 - m) / s == (x - 255 m) / (255 s)`. A
    published ImageNet mean of 0.485 is 123.675 here.

    Attributes:
      mean: one number a channel.
      std: one positive number a channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    # In capitals, which a NamedTuple does not take for fields.
    KIND = "image"
    DTYPE = jnp.float32

    def stored(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Returns one stored image whose input has the shape (H, W, C)."""
        return jax.ShapeDtypeStruct(shape, jnp.uint8)

    def plain(self) -> dict[str, Any]:
        """Returns `{'mean': [...], 'std': [...]}`, for JSON and for artifacts."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the inputs of images [B, H, W, C]; see `apply`."""
        return apply(self, images)


def from_plain(values: dict[str, Any]) -> Normalisation:
    """Returns what `Normalisation.plain` was called on."""
    return Normalisation(*(tuple(map(float, values[k])) for k in ("mean", "std")))


def measure(train: splits.Train) -> Normalisation:
    """Returns the mean and the (population) deviation of the training pixels.

    Sums are kept as histograms of integers, so the result is exact to the last bit of a
    float64 and does not depend on the order of the examples. A channel that never
    varies gets a deviation of 1.

    Raises:
      TypeError: it is another split than the training split.
    """
    if not isinstance(train, splits.Train):
        raise TypeError(f"normalisation is measured on Train, got {train!r}")
    indices = np.arange(len(train))
    if not isinstance(train.source, examples.Arrays):
        indices = np.unique(
            np.linspace(
                0, len(train) - 1, min(len(train), STREAMED_EXAMPLES), dtype=int
            )
        )
    channels = train.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(indices), 4096):
        images = train.source.gather(indices[start : start + 4096])["input"]
        for c in range(channels):
            histogram[c] += np.bincount(images[..., c].ravel(), minlength=256)
    value = np.arange(256.0)
    total = histogram.sum(1)
    mean = histogram @ value / total
    variance = (histogram * (value - mean[:, None]) ** 2).sum(1) / total
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


# Of the images of ImageNet's train split, of pixels from 0 to 255 (0.485, ... of 1), as
# PyTorch's models and most weights in circulation take their images.
IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def imagenet(train: splits.Train) -> Normalisation:
    """Returns `IMAGENET`, whatever the training split holds.

    Raises:
      UserError: the images have not three channels.
    """
    if train.shape[-1] != len(IMAGENET.mean):
        raise errors.UserError(
            f"normalisation 'imagenet' is of 3 channels, and data set {train.name!r} "
            f"has images of shape {train.shape}"
        )
    return IMAGENET


# What a config may ask for, by name: the training split -> its normalisation.
NORMALISATIONS: dict[str, Callable[[splits.Train], Normalisation]] = {
    "measured": measure,
    "imagenet": imagenet,
}


def apply(normalisation: Normalisation, images: jax.Array) -> jax.Array:
    """Returns float32 inputs for `images`, [..., H, W, C] pixels of any type.

    Computed as `(x - mean) * (1 / std)` with the reciprocal rounded to float32 first:
    nothing is left for a compiler to fuse or reorder, so NumPy and XLA agree bit for
    bit.
    """
    mean, inverse = constants(normalisation)
    shape = (1,) * (images.ndim - 1) + (-1,)
    x = images.astype(jnp.float32)
    return (x - mean.reshape(shape)) * inverse.reshape(shape)


def constants(normalisation: Normalisation) -> tuple[np.ndarray, np.ndarray]:
    """Returns `mean` and `1 / std` as the float32 [C] that `apply` computes with."""
    mean = np.asarray(normalisation.mean, np.float32)
    return mean, np.float32(1) / np.asarray(normalisation.std, np.float32)
