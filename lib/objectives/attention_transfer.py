"""Attention transfer: where a network looks, whatever its number of channels."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import base, checks, maps, weighting


def attention_transfer(*, pairs: base.Pairs, power: float) -> base.Term:
    """Returns attention maps' loss (Zagoruyko & Komodakis 2017, arXiv 1612.03928).

    A map is `sum_c |A_c|**p` over the channels, as a vector of length 1; an example
    contributes the squared distance of the student's from the teacher's, in [0, 4],
    for each pair (eq. 2, squared, as in the authors' program: the distance has no slope
    where the two agree). Maps of differing sizes are averaged down to the smaller one.
    Examples count by `batch["weight"]`, no gradient reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), both `[B, H, W, C]`; the channels
        may differ.
      power: p, at least 1; 2 in the paper.

    The term raises a `UserError`, when traced, as `hint` does.
    """
    name = "attention_transfer"
    base.check_pairs(name, pairs)
    checks.number(f"{name}.power", power, low=1)

    def seen(x: jax.Array) -> jax.Array:
        return base.normalised(base.flat(jnp.sum(jnp.abs(x) ** power, axis=-1)))

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        total = 0.0
        found = base.paired(name, pairs, outputs, teacher, axes=(4,))
        for pair, (a, b) in zip(pairs, found, strict=True):
            a, b = maps.matched(name, pair, a, b)
            each = jnp.sum(jnp.square(seen(a) - seen(b)), axis=-1)
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return term
