"""Hints: the student's features, mapped by a learned regressor, match the teacher's."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import base, maps, weighting


def hint(*, pairs: base.Pairs) -> base.Headed:
    """Returns the hints' loss (Romero et al. 2015, FitNets, arXiv 1412.6550, eq. 3).

    Of each pair, the mean over elements of `(teacher - r(student))**2`, where r is
    affine over the channels, a 1x1 convolution, and learned: one for each pair. The
    paper has half the sum: the mean does not grow with the features. Maps of differing
    sizes are averaged down to the smaller one. Pairs add up, examples count by
    `batch["weight"]`, no gradient reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), both `[B, H, W, C]` or both
        `[B, C]`; the channels may differ.

    The term raises a `UserError`, when traced, if there is no teacher, a feature is
    unknown, or shapes do not fit.
    """
    base.check_pairs("hint", pairs)

    def found(outputs: Any, teacher: Any) -> list[tuple[Any, Any]]:
        return base.paired("hint", pairs, outputs, teacher, axes=(2, 4))

    def init(key: jax.Array, outputs: Any, teacher: Any) -> dict[str, Any]:
        keys = jax.random.split(key, len(pairs))
        return {
            f"pair_{i}": base.dense(keys[i], a.shape[-1], b.shape[-1])
            for i, (a, b) in enumerate(found(outputs, teacher))
        }

    def term(
        outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any
    ) -> jax.Array:
        total = 0.0
        for i, (a, b) in enumerate(found(outputs, teacher)):
            if a.ndim == 4:
                a, b = maps.matched("hint", pairs[i], a, b)
            error = jnp.square(base.mapped(heads[f"pair_{i}"], a) - b)
            each = jnp.mean(base.flat(error), axis=-1)
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return base.Headed(init, term)
