"""A weight as the matrices that meet its inputs, one for each statistic of them.

`program.inputs` gives statistics of the shape `[..., contraction]`, or of two such axes
for a gram. A dense kernel `[in, out]` and a convolution's `[h, w, in, out]` are one
matrix `[contraction, out]`; where a scan gives each turn a slice, the leading axes
stand for the turns; and a convolution in groups has a matrix a group, `[groups, h * w *
in, out / groups]`, as its outputs stand group by group.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import errors


class Matrices(NamedTuple):
    """How a leaf is seen as `[..., contraction, outputs]`.

    Attributes:
      shape: of the leaf.
      rows: all axes of the matrices but the last.
      groups: of a convolution; the last of the leading axes, where above 1.
    """

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    groups: int

    @property
    def among(self) -> int:
        """How many outputs stand among the axes of the inputs, as heads do."""
        return math.prod(self.shape[:-1]) * self.groups // math.prod(self.rows)

    def split(self, w: Any) -> Any:
        """Returns an array of the leaf's shape as `[..., contraction, outputs]`."""
        if self.groups == 1:
            return w.reshape(*self.rows, -1)
        *lead, groups, contraction = self.rows
        w = w.reshape(*lead, contraction, groups, -1)
        return w.swapaxes(-3, -2)

    def join(self, x: Any) -> Any:
        """Returns `[..., contraction, outputs]` in the leaf's shape."""
        if self.groups > 1:
            x = x.swapaxes(-3, -2)
        return x.reshape(self.shape)


def matrices(path: str, w: Any, rows: tuple[int, ...], what: str) -> Matrices:
    """Returns how `w` is seen, given the shape of one statistic a row.

    Args:
      path: of the leaf, for the message.
      w: the leaf; its shape alone is read.
      rows: `[..., contraction]`, as of `program.square_norm`.
      what: of what `rows` is the shape, for the message.

    Raises:
      UserError: the leaf cannot be seen so.
    """
    shape, rows = tuple(w.shape), tuple(rows)
    size, count = math.prod(shape), math.prod(rows)
    if rows and count and not size % count:
        lead = len(rows) - 1
        kernel = shape[lead - 1 :]  # of a convolution in groups, below its turns
        if (
            lead > 0
            and shape[: lead - 1] == rows[: lead - 1]
            and len(kernel) > 2
            and math.prod(kernel[:-1]) == rows[-1]
        ):
            return Matrices(shape, rows, rows[-2])
        if shape[:lead] == rows[:-1]:
            return Matrices(shape, rows, 1)
    raise errors.UserError(
        f"{what} of shape {rows} do not fit {path} with shape {shape}"
    )


def gram(
    name: str, path: str, w: Any, grams: Mapping[str, Any]
) -> tuple[jax.Array, Matrices]:
    """Returns the gram of a leaf, float32 `[..., n, n]`, and how the leaf is seen.

    Args:
      name: of the technique, for messages.
      path: of the leaf.
      w: the leaf; its shape alone is read.
      grams: {path: `x.T @ x`}.

    Raises:
      UserError: the gram is missing, or does not fit.
    """
    found = jnp.asarray(errors.lookup(grams, path, "gram of a weight"), jnp.float32)
    if found.ndim < 2 or found.shape[-1] != found.shape[-2]:
        raise errors.UserError(
            f"{name}: the gram of {path} is square, got shape {found.shape}"
        )
    return found, matrices(path, w, found.shape[:-1], f"{name}: grams")
