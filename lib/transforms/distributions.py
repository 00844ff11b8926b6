"""How many weights go from where: each leaf alike, by its shape, or ranked together.

The fraction may be traced everywhere. Another one for each rule is `select`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib.transforms import selection

Shapes = list[tuple[int, ...]]
Counts = list  # int or int32: of each leaf, or a single one for all leaves together

# Counts of leaves below this size are float32 arithmetic whether or not the sparsity
# is traced, so that a swept run and a single run remove the same number.
_EXACT = 2**24


def count(sparsity, size: int):
    """Returns round(sparsity * size), half to even: an int, or int32 if traced."""
    if isinstance(sparsity, jax.Array):
        return jnp.rint(sparsity.astype(jnp.float32) * size).astype(jnp.int32)
    if size < _EXACT:
        return int(np.rint(np.float32(sparsity) * np.float32(size)))
    return round(float(sparsity) * size)


def layerwise(sparsity, shapes: Shapes) -> Counts:
    """Returns the same fraction of each leaf: [round(sparsity * size)]."""
    return [count(sparsity, int(np.prod(shape))) for shape in shapes]


def erk(sparsity, shapes: Shapes) -> Counts:
    """Returns Erdos-Renyi-Kernel counts: the smaller a leaf, the denser it stays.

    Density of a leaf ~ epsilon * sum(shape) / prod(shape), with epsilon such that the
    whole keeps `1 - sparsity`; leaves that would pass 1 stay dense (Evci et al. 2020,
    arXiv 1911.11134, section 3.1).

    Args:
      sparsity: fraction removed over all leaves together, in [0, 1]; may be traced.
      shapes: the leaves' shapes.

    Returns:
      the number of weights to remove from each leaf.
    """
    size, raw = (
        np.asarray([f(s) for s in shapes], np.int64) for f in (np.prod, np.sum)
    )
    # Leaves fill up in a fixed order as more is kept, so which ones are dense is a
    # matter of limits known beforehand. Entry j: with the j first leaves dense,
    first = np.argsort(-raw / size, kind="stable")
    full = np.r_[0, np.cumsum(size[first])]  # the weights in them,
    rest = raw.sum() - np.r_[0, np.cumsum(raw[first])]  # kept / epsilon of the others,
    limit = full[:-1] - (-rest[:-1] * size[first] // raw[first])  # where one more fills
    kept = size.sum() - count(sparsity, int(size.sum()))
    dense = jnp.sum(kept >= jnp.asarray(limit, jnp.int32))
    # Products alone round the same whether or not they are compiled or mapped.
    free = (kept - jnp.asarray(full, jnp.int32)[dense]).astype(jnp.float32)
    epsilon = free * jnp.asarray(1 / np.maximum(rest, 1), jnp.float32)[dense]
    size, raw = jnp.asarray(size, jnp.int32), jnp.asarray(raw, jnp.float32)
    share = jnp.clip(jnp.rint(epsilon * raw).astype(jnp.int32), 0, size)
    return list(size - jnp.where(np.argsort(first) < dense, size, share))


def whole(sparsity, shapes: Shapes) -> Counts:
    """Returns one count for all leaves ranked together: [round(sparsity * total)]."""
    return [count(sparsity, sum(int(np.prod(shape)) for shape in shapes))]


def columns(sparsity, shapes: Shapes) -> Counts:
    """Returns the same share of each output: [round(sparsity * inputs) * outputs]."""
    return [count(sparsity, int(np.prod(s[:-1]))) * s[-1] for s in shapes]


def lamp(score: jax.Array) -> jax.Array:
    """Returns each square over the sum of those that are not smaller.

    LAMP (Lee et al. 2021, arXiv 2010.07611, section 3). Scores of different leaves
    can be compared: each leaf's largest gets 1. Of equal weights those that stand
    first get the higher score.

    Args:
      score: magnitudes of one leaf, any shape.

    Returns:
      float32 in [0, 1] of the same shape.
    """
    flat = score.astype(jnp.float32).reshape(-1)
    # The ratio does not change with the unit; squares of the raw values may overflow.
    most = jnp.max(flat)
    square = jnp.square(flat / jnp.where(most > 0, most, 1))
    highest = jnp.argsort(-flat, stable=True)
    not_smaller = jnp.cumsum(square[highest])
    ratio = square[highest] / jnp.where(not_smaller > 0, not_smaller, 1)
    return jnp.zeros_like(flat).at[highest].set(ratio).reshape(score.shape)


def _each(scores: list[jax.Array], counts: Counts) -> list[jax.Array]:
    pairs = zip(scores, counts, strict=True)
    return [selection.keep_all_but([s], n)[0] for s, n in pairs]


def _together(scores: list[jax.Array], counts: Counts) -> list[jax.Array]:
    return selection.keep_all_but(scores, counts[0])


def _columns(scores: list[jax.Array], counts: Counts) -> list[jax.Array]:
    def leaf(score, count):
        seen = score.reshape(-1, score.shape[-1])
        kept = jax.vmap(
            lambda column: selection.keep_all_but([column], count // seen.shape[1])[0],
            in_axes=1,
            out_axes=1,
        )(seen)
        return kept.reshape(score.shape)

    return [leaf(s, n) for s, n in zip(scores, counts, strict=True)]


class Distribution(NamedTuple):
    """Where the removed weights are taken from.

    Attributes:
      counts: (sparsity, shapes) -> how many go, of each leaf or of all together.
      select: (scores of the leaves, counts) -> masks, True = keep; the lowest scores
        go, of equal ones those that stand last.
      scores: one leaf's scores -> what is ranked.
    """

    counts: Callable[[float | jax.Array, Shapes], Counts]
    select: Callable[[list[jax.Array], Counts], list[jax.Array]]
    scores: Callable[[jax.Array], jax.Array] = lambda score: score

    def __call__(self, sparsity: float | jax.Array, shapes: Shapes) -> Counts:
        """Returns `counts(sparsity, shapes)`."""
        return self.counts(sparsity, shapes)

    def masks(self, scores: dict[str, jax.Array], sparsity) -> dict[str, jax.Array]:
        """Returns {path: mask, True = keep} of {path: scores} at a sparsity."""
        # In a fixed order: jit sorts the keys of dicts, and ties go by place.
        paths = sorted(scores)
        counts = self.counts(sparsity, [tuple(scores[p].shape) for p in paths])
        kept = self.select([self.scores(scores[p]) for p in paths], counts)
        return dict(zip(paths, kept, strict=True))


DISTRIBUTIONS = {
    "layerwise": Distribution(layerwise, _each),
    "erk": Distribution(erk, _each),
    "global": Distribution(whole, _together),
    "lamp": Distribution(whole, _together, lamp),
    # Each output's inputs among themselves: Wanda's groups (2306.11695, section 3).
    "output": Distribution(columns, _columns),
}
