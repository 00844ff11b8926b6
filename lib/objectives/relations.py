"""Relational distillation: distances and angles between the examples of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib.objectives import base, weighting

# Below it, two examples are at one place: the slope of a length there is infinite.
TINY = 1e-12


def _huber(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size <= 1, 0.5 * x * x, size - 0.5)


def _lengths(differences: jax.Array) -> jax.Array:
    square = jnp.sum(jnp.square(differences), axis=-1)
    apart = square > TINY
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _distances(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns distances `[B, B]`, divided by their mean over pairs (eq. 5 and 6)."""
    lengths = _lengths(x[:, None] - x[None, :])
    return lengths / jnp.maximum(weighting.pair_mean(lengths, weight), TINY)


def _angles(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns cosines `[j, i, k]` of the angles at j between i and k (eq. 8)."""
    del weight
    differences = x[:, None] - x[None, :]  # [j, i, n]
    sides = (
        differences
        * (
            lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(differences), -1), TINY))[
                ..., None
            ]
        )
    )
    return jnp.einsum("jin,jkn->jik", sides, sides)


def _relational(name: str, pairs: base.Pairs, relation: Callable) -> base.Term:
    base.check_pairs(name, pairs)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        weight = batch["weight"]
        other = 1 - jnp.eye(weight.shape[0])
        pair = weight[:, None] * weight[None, :] * other
        count = pair
        if relation is _angles:  # at j: i and k, all three different
            count = pair[:, :, None] * pair[:, None, :] * other[None]
        total = 0.0
        for ours, theirs in pairs:
            a = base.feature(name, "student", outputs, ours)
            b = base.feature(name, "teacher", base.required(name, teacher), theirs)
            a, b = (base.flat(weighting.real(x, weight)) for x in (a, b))
            off = relation(a, pair) - lax.stop_gradient(relation(b, pair))
            total += jnp.sum(count * _huber(off)) / jnp.maximum(jnp.sum(count), TINY)
        return total

    return term


def rkd_distance(*, pairs: base.Pairs) -> base.Term:
    """Returns the loss of distances (Park et al. 2019, arXiv 1904.05068, eq. 7).

    Distances between the features of two examples, divided by the mean of them in the
    batch; Huber's loss of the student's minus the teacher's, as a mean over all pairs
    of different examples (the paper's sum over as many). Features pairs add up. A pair
    counts by the product of its examples' weights; no gradient reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), each `[B, ...]`; `[B, B, n]` floats
        are held for n elements, so features are those of a late layer.

    The term raises a `UserError`, when traced, if there is no teacher or a feature is
    unknown.
    """
    return _relational("rkd_distance", pairs, _distances)


def rkd_angle(*, pairs: base.Pairs) -> base.Term:
    """Returns the loss of angles (Park et al. 2019, arXiv 1904.05068, eq. 9).

    The cosine of the angle that three examples form; otherwise as `rkd_distance`, over
    triples. An example weighs in twice at the angle's vertex.

    Args:
      pairs: as in `rkd_distance`; `[B, B, B]` floats are held, too.
    """
    return _relational("rkd_angle", pairs, _angles)
