"""What is removed at once: single weights, n of m neighbours, blocks, channels.

A shape turns the scores of weights into those of units and the mask of units back into
one of weights. Inputs are all axes of a kernel but the last, flattened in its order
(HWIO for convolutions); the last axis is the outputs.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.transforms import distributions, selection


class Shape(NamedTuple):
    """A way to cut a leaf into units.

    Attributes:
      units: scores `[..., out]` -> the units' scores, each the mean of its weights'.
      expand: (mask of units, the leaf's shape) -> mask of weights.
      check: (path, the leaf's shape) -> None, or a `UserError`.
      goes_with: names of the distributions over units that have a meaning.
      spread: the distribution the shape itself prescribes, instead of those.
      most: the largest sparsity there is.
    """

    units: Callable[[jax.Array], jax.Array]
    expand: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    check: Callable[[str, tuple[int, ...]], None]
    goes_with: tuple[str, ...] = ("layerwise", "global", "lamp", "output")
    spread: distributions.Distribution | None = None
    most: float = 1.0


UNSTRUCTURED = Shape(
    units=lambda scores: scores,
    expand=lambda mask, shape: mask,
    check=lambda path, shape: None,
    goes_with=tuple(distributions.DISTRIBUTIONS),
)


def _inputs(path: str, shape: tuple[int, ...], what: str) -> int:
    """Returns the length of the contraction axis, or raises a `UserError`."""
    if len(shape) < 2:
        raise errors.UserError(
            f"prune: {what} needs inputs and outputs, got {path} with shape {shape}"
        )
    return int(np.prod(shape[:-1]))


def _channel() -> Shape:
    def units(scores):
        return jnp.mean(scores.astype(jnp.float32), axis=tuple(range(scores.ndim - 1)))

    def expand(mask, shape):
        return jnp.broadcast_to(mask.reshape((1,) * (len(shape) - 1) + (-1,)), shape)

    def check(path, shape):
        _inputs(path, shape, "shape 'channel'")

    return Shape(units, expand, check, ("layerwise", "global", "lamp"))


def _block(height: int, width: int) -> Shape:
    def units(scores):
        seen = scores.astype(jnp.float32).reshape(-1, scores.shape[-1])
        rows, outputs = seen.shape
        tiles = seen.reshape(rows // height, height, outputs // width, width)
        return jnp.mean(tiles, axis=(1, 3))

    def expand(mask, shape):
        rows, outputs = mask.shape
        tiled = jnp.broadcast_to(mask[:, None, :, None], (rows, height, outputs, width))
        return tiled.reshape(shape)

    def check(path, shape):
        inputs = _inputs(path, shape, f"shape '{height}x{width}'")
        if inputs % height or shape[-1] % width:
            raise errors.UserError(
                f"prune: blocks of {height}x{width} do not divide the {inputs} inputs "
                f"and {shape[-1]} outputs of {path} with shape {shape}"
            )

    return Shape(units, expand, check)


def _n_of_m(n: int, m: int) -> Shape:
    def counts(sparsity, shapes):
        gone = distributions.count(sparsity, m)
        if isinstance(gone, jax.Array):
            gone = jnp.minimum(gone, m - n)
        else:
            gone = min(gone, m - n)
        return [int(np.prod(shape)) // m * gone for shape in shapes]

    def select(scores, counts):
        return [
            selection.keep_in_groups(s, count // (s.size // m), m)
            for s, count in zip(scores, counts, strict=True)
        ]

    def check(path, shape):
        inputs = _inputs(path, shape, f"shape '{n}:{m}'")
        if inputs % m:
            raise errors.UserError(
                f"prune: groups of {m} do not divide the {inputs} inputs of {path} "
                f"with shape {shape}"
            )

    spread = distributions.Distribution(counts, select)
    return UNSTRUCTURED._replace(
        check=check, goes_with=("layerwise",), spread=spread, most=1 - n / m
    )


def parse(shape: str) -> Shape:
    """Returns the shape of a name.

    Args:
      shape: "unstructured"; "channel", an output with all its inputs; "AxB" as "4x1",
        blocks of A inputs and B outputs; or "N:M" as "2:4", which keeps N of every M
        neighbouring inputs of an output (Mishra et al. 2021, arXiv 2104.08378).

    Raises:
      UserError: for any other name, or numbers out of range.
    """
    if shape == "unstructured":
        return UNSTRUCTURED
    if shape == "channel":
        return _channel()
    block = re.fullmatch(r"(\d+)x(\d+)", shape)
    if block and min(map(int, block.groups())) > 0:
        return _block(*map(int, block.groups()))
    ratio = re.fullmatch(r"(\d+):(\d+)", shape)
    if ratio and 0 < int(ratio[1]) < int(ratio[2]):
        return _n_of_m(int(ratio[1]), int(ratio[2]))
    raise errors.UserError(
        f"prune: unknown shape {shape!r}; valid: unstructured, channel, blocks of AxB "
        "as 4x1, or N:M with 0 < N < M as 2:4"
    )
