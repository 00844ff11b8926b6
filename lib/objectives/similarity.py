"""Similarity-preserving: inputs that are alike to the teacher are to the student."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import base, weighting


def similarity(*, pairs: base.Pairs) -> base.Term:
    """Returns the similarity-preserving loss (Tung & Mori 2019, arXiv 1907.09682).

    With features as rows of A `[B, n]`, G is `A A^T` with rows of length 1; each pair
    contributes the mean of `(G_teacher - G_student)**2` over the B x B entries (eq. 1
    to 4). An entry counts by the weights of its two examples, and one of weight 0 is
    in no row. No gradient reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), each `[B, ...]` of any shape.

    The term raises a `UserError`, when traced, if there is no teacher or a feature is
    unknown.
    """
    base.check_pairs("similarity", pairs)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        weight = batch["weight"]

        def alike(x: jax.Array) -> jax.Array:
            rows = base.flat(weighting.real(x, weight))
            return base.normalised(rows @ rows.T)

        total = 0.0
        for ours, theirs in pairs:
            a = base.feature("similarity", "student", outputs, ours)
            b = base.required("similarity", teacher)
            b = base.feature("similarity", "teacher", b, theirs)
            square = jnp.square(alike(a) - jax.lax.stop_gradient(alike(b)))
            total += weighting.pair_mean(square, weight)
        return total

    return term
