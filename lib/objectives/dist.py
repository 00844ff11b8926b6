"""DIST: correlations instead of divergences, for a teacher much stronger."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib.objectives import base, checks, weighting

TINY = 1e-12  # added to variances, so that equal numbers have a slope


def _correlation(a: jax.Array, b: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns Pearson's correlation along the first axis, in proportion to weights."""
    share = weight / jnp.maximum(jnp.sum(weight, axis=0, keepdims=True), TINY)

    def mean(x):
        return jnp.sum(share * x, axis=0, keepdims=True)

    a, b = a - mean(a), b - mean(b)
    covariance = mean(a * b) * lax.rsqrt(mean(a * a) + TINY)
    return (covariance * lax.rsqrt(mean(b * b) + TINY))[0]


def dist(
    *,
    inter: float | jax.Array,
    intra: float | jax.Array,
    temperature: float | jax.Array,
) -> base.Term:
    """Returns `T**2 (b inter + g intra)` (Huang et al. 2022, arXiv 2205.10536, eq. 10).

    Of softmax(logits / T), student's against teacher's: `inter` is the mean over
    examples of 1 - Pearson's correlation over the classes (eq. 8), `intra` the mean
    over classes of 1 - that over the examples of the batch (eq. 9). Examples count by
    `batch["weight"]`; no gradient reaches the teacher.

    Args:
      inter: b, at least 0. May be traced.
      intra: g, at least 0. May be traced.
      temperature: T, above 0. May be traced.

    The term raises a `UserError`, when traced, as `distill` does.
    """
    checks.number("dist.inter", inter, low=0)
    checks.number("dist.intra", intra, low=0)
    checks.number("dist.temperature", temperature, low=0, low_open=True)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        student, target = base.taught("dist", outputs, teacher)
        weight = batch["weight"]
        p = jax.nn.softmax(weighting.real(target, weight) / temperature)
        q = jax.nn.softmax(weighting.real(student, weight) / temperature)
        over_classes = _correlation(q.T, p.T, jnp.ones((q.shape[-1], 1)))
        over_examples = _correlation(q, p, weight[:, None])
        loss = inter * weighting.weighted_mean(1 - over_classes, weight)
        return temperature**2 * (loss + intra * jnp.mean(1 - over_examples))

    return term
