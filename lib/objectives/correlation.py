"""Correlation congruence: kernels between the examples of a batch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib.objectives import base, checks, weighting


def correlation(
    *, pairs: base.Pairs, gamma: float | jax.Array, order: int
) -> base.Term:
    """Returns the correlation congruence (Peng et al. 2019, arXiv 1904.01802, eq. 6).

    Of features of length 1, a Gaussian kernel `exp(-gamma ||x - y||**2)` by its Taylor
    series `exp(-2 gamma) sum_p (2 gamma)**p / p! (x y)**p` to the power `order` (eq.
    9); each pair contributes the mean square of the teacher's B x B kernel minus the
    student's. An entry counts by the product of its examples' weights; no gradient
    reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), each `[B, ...]` of any shape.
      gamma: above 0; 0.4 in the paper. May be traced.
      order: at least 1; 2 in the paper.

    Raises:
      UserError: a setting out of its range; when traced, if there is no teacher or a
        feature is unknown.
    """
    base.check_pairs("correlation", pairs)
    checks.number("correlation.gamma", gamma, low=0, low_open=True)
    checks.number("correlation.order", order, low=1)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        weight = batch["weight"]

        def kernel(x: jax.Array) -> jax.Array:
            rows = base.normalised(base.flat(weighting.real(x, weight)))
            dots = rows @ rows.T
            powers = (
                (2 * gamma) ** p / math.factorial(p) * dots**p
                for p in range(int(order) + 1)
            )
            return jnp.exp(-2 * jnp.asarray(gamma)) * sum(powers)

        total = 0.0
        for ours, theirs in pairs:
            a = base.feature("correlation", "student", outputs, ours)
            b = base.required("correlation", teacher)
            b = base.feature("correlation", "teacher", b, theirs)
            square = jnp.square(kernel(a) - lax.stop_gradient(kernel(b)))
            total += weighting.pair_mean(square, weight)
        return total

    return term
