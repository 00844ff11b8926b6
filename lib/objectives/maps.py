"""Maps of features at one height and width."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lib.objectives import base


def _pooled(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns the means of equal windows of `[B, H, W, C]`: `[B, *size, C]`."""
    (height, width), (batch, h, w, channels) = size, x.shape
    windows = x.reshape(batch, height, h // height, width, w // width, channels)
    return jnp.mean(windows, axis=(2, 4))


def matched(
    term: str, pair: Sequence[str], student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns both maps `[B, H, W, C]` at the smaller size, by means of windows.

    Raises:
      UserError: one height or width is no multiple of the other.
    """
    a, b = student.shape[1:3], teacher.shape[1:3]
    size = (min(a[0], b[0]), min(a[1], b[1]))
    if any(n % m for side in (a, b) for n, m in zip(side, size, strict=True)):
        why = "their heights and widths are no multiples of one another"
        base.unfit(term, pair, student, teacher, why)
    return _pooled(student, size), _pooled(teacher, size)
