"""RandAugment: a few operations of a list, drawn for each image (arXiv 1909.13719).

The list and its strengths are the paper's, which are AutoAugment's (1805.09501, table
6), in the symmetric form of torchvision: at magnitude 0 an operation with a strength
does nothing, and 10 is the strongest that the list has. Each image draws its own.

Under `vmap`, all branches of a choice are computed. So the operations come in two
kinds: those that move pixels only choose a matrix, and one warp serves them all.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors
from lib.data.augment import base, colours, geometry

STRONGEST = 10.0  # the magnitude of the list's own strengths

# What Pillow's "smooth" filter weighs a pixel and its neighbours with.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _moved(rows: float | jax.Array, columns: float | jax.Array, shape: Sequence[int]):
    """Returns a warp that moves by shares of the sides, right and down."""
    return ((1.0, 0.0), (0.0, 1.0)), (-rows * shape[0], -columns * shape[1])


def _turned(angle: jax.Array):
    c, s = jnp.cos(angle), jnp.sin(angle)
    return ((c, s), (-s, c)), (0.0, 0.0)


# (level in [-1, 1], shape) -> matrix and move of `geometry.warp`.
WARPS: dict[str, Callable] = {
    "rotate": lambda v, shape: _turned(jnp.deg2rad(30.0 * v)),
    "shear_x": lambda v, shape: (((1.0, 0.0), (0.3 * v, 1.0)), (0.0, 0.0)),
    "shear_y": lambda v, shape: (((1.0, 0.3 * v), (0.0, 1.0)), (0.0, 0.0)),
    "translate_x": lambda v, shape: _moved(0.0, 150 / 331 * v, shape),
    "translate_y": lambda v, shape: _moved(150 / 331 * v, 0.0, shape),
}


def sharpen(image: jax.Array, factor: jax.Array, white: float) -> jax.Array:
    """Moves pixels away from the smoothed image's by `factor`, all but the border's."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    smooth = sum(
        float(_SMOOTH[i, j]) * image[i : height - 2 + i, j : width - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    smooth = jnp.asarray(image).at[1:-1, 1:-1].set(smooth)
    return colours.blend(image, smooth, factor, white)


def posterize(image: jax.Array, bits: jax.Array, white: float) -> jax.Array:
    """Keeps the highest `bits` of each pixel on the scale of 0 to 255."""
    step = 2.0 ** (8 - bits) * white / 255
    return jnp.floor(image / step) * step


def solarize(image: jax.Array, threshold: jax.Array, white: float) -> jax.Array:
    """Inverts the pixels that are `threshold` or brighter."""
    return jnp.where(image >= threshold, white - image, image)


def autocontrast(image: jax.Array, white: float) -> jax.Array:
    """Stretches each channel to the whole range; one that never varies is kept."""
    low = jnp.min(image, axis=(0, 1), keepdims=True)
    high = jnp.max(image, axis=(0, 1), keepdims=True)
    wide = high > low
    return jnp.where(
        wide, (image - low) * (white / jnp.where(wide, high - low, 1)), image
    )


def equalize(image: jax.Array, white: float) -> jax.Array:
    """Makes each channel's histogram of 256 levels as flat as Pillow does.

    With h the histogram, s the sum of all but its last occupied level, over 255 and
    rounded down, level v becomes `(s // 2 + sum(h[:v])) // s`, at most 255; a channel
    with s = 0 is kept.
    """

    def channel(x: jax.Array) -> jax.Array:
        level = jnp.clip(jnp.round(x * (255 / white)), 0, 255).astype(jnp.int32)
        counts = jnp.bincount(level.ravel(), length=256)
        below = jnp.cumsum(counts) - counts
        last = jnp.max(jnp.where(counts > 0, jnp.arange(256), 0))
        step = (x.size - counts[last]) // 255
        table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, jnp.take(table, level) * (white / 255), x)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


# (image, level in [-1, 1], white) -> image.
COLOURS: dict[str, Callable] = {
    "identity": lambda x, v, white: x,
    "autocontrast": lambda x, v, white: autocontrast(x, white),
    "equalize": lambda x, v, white: equalize(x, white),
    "brightness": lambda x, v, white: colours.brighten(x, 1 + 0.9 * v, white),
    "colour": lambda x, v, white: colours.saturate(x, 1 + 0.9 * v, white),
    "contrast": lambda x, v, white: colours.sharpen_contrast(x, 1 + 0.9 * v, white),
    "sharpness": lambda x, v, white: sharpen(x, 1 + 0.9 * v, white),
    "posterize": lambda x, v, white: posterize(x, 8 - jnp.round(4 * jnp.abs(v)), white),
    "solarize": lambda x, v, white: solarize(x, white * (1 - jnp.abs(v)), white),
}

OPERATIONS = (*WARPS, *COLOURS)


def randaugment(
    *,
    count: int,
    magnitude: float,
    operations: Sequence[str],
    fill: str,
    white: float,
) -> base.Augmentation:
    """Applies `count` operations, each drawn anew, all equally likely.

    Args:
      count: how many, one after another; N of the paper.
      magnitude: M of the paper, in [0, 10]; the sign of a strength that has one is
        drawn. At 0 nothing is done at all, though `autocontrast` and `equalize` have no
        strength.
      operations: those that are drawn, of `OPERATIONS`; () for all.
      fill: what moves in from outside; "zero" or "edge".
      white: the brightest pixel.
    """
    if not isinstance(count, int) or count < 0:
        raise errors.UserError(
            f"randaugment.count must be a whole number, got {count!r}"
        )
    base.check("randaugment.magnitude", magnitude, 0, STRONGEST)
    base.check("randaugment.white", white, 0, 255, low_open=True)
    _, mode = errors.lookup(base.FILLS, fill, "fill")
    for name in operations:
        errors.lookup(dict.fromkeys(OPERATIONS), name, "operation of randaugment")
    chosen = tuple(operations) or OPERATIONS

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        out = image
        for i in range(count):
            of_choice, of_sign = jax.random.split(jax.random.fold_in(key, i))
            index = jax.random.randint(of_choice, (), 0, len(chosen))
            sign = jnp.where(jax.random.bernoulli(of_sign), 1.0, -1.0)
            level = sign * magnitude / STRONGEST
            out = _apply(out, chosen, index, level, mode, white)
        return jnp.where(magnitude == 0, image, out)

    return augment


def _apply(image, chosen, index, level, mode, white):
    """Returns the image after the operation `chosen[index]`."""
    warps = [name for name in chosen if name in WARPS]
    if warps:
        # One case more, for the operations that move nothing.
        stay = jnp.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
        cases = [_numbers(WARPS[name](level, image.shape)) for name in warps]
        places = np.array([warps.index(n) if n in WARPS else -1 for n in chosen])
        a, b, c, d, y, x = jnp.stack([*cases, stay])[jnp.asarray(places)[index]]
        image = geometry.warp(image, ((a, b), (c, d)), mode, (y, x))
    colours = [COLOURS[name if name in COLOURS else "identity"] for name in chosen]
    return lax.switch(index, [lambda f=f: f(image, level, white) for f in colours])


def _numbers(warp) -> jax.Array:
    ((a, b), (c, d)), (y, x) = warp
    return jnp.stack([jnp.asarray(v, jnp.float32) for v in (a, b, c, d, y, x)])
