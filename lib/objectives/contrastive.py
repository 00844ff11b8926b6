"""Contrastive distillation: two views of one example are known among others."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors
from lib.objectives import base, checks, weighting

NEGATIVES = ("classes", "all")


def crd(
    *,
    pairs: base.Pairs,
    size: int,
    temperature: float | jax.Array,
    examples: int,
    negatives: str,
) -> base.Headed:
    """Returns the contrastive loss (Tian et al. 2020, arXiv 1910.10699, eq. 17 to 19).

    Features of both networks are mapped, each by a learned affine map, to vectors of
    length 1. With s and t of two examples, `h = sigma(s t / T - log(N / M))` is the
    chance that they are the same example. An example contributes `-log h` of its own s
    and t and the sum of `-log(1 - h)` over its N negatives, twice: with its s against
    the t of others, and the reverse. The negatives are other examples of the batch (on
    one device under pmap), so there is no memory to keep; the paper keeps one of
    16384. The mean goes over `batch["weight"]`, and a negative counts by its weight; no
    gradient reaches the teacher, but one reaches its projection.

    Args:
      pairs: (student's feature, teacher's feature), each `[B, ...]` of any shape.
      size: of the common space, at least 1; 128 in the paper.
      temperature: T, above 0; 0.07 in the paper. May be traced.
      examples: M, the number of examples of the training split, at least 1; no
        setting: `objectives.build` is told it.
      negatives: "classes", examples of other classes, or "all" others.

    Raises:
      UserError: a setting out of its range; when traced, if there is no teacher, a
        feature is unknown, or labels were mixed.
    """
    base.check_pairs("crd", pairs)
    checks.number("crd.size", size, low=1)
    checks.number("crd.temperature", temperature, low=0, low_open=True)
    checks.number("crd.examples", examples, low=1)
    errors.lookup(dict.fromkeys(NEGATIVES), negatives, "kind of negatives")

    def found(outputs: Any, teacher: Any) -> list[tuple[Any, Any]]:
        base.required("crd", teacher)
        return [
            (
                base.feature("crd", "student", outputs, ours),
                base.feature("crd", "teacher", teacher, theirs),
            )
            for ours, theirs in pairs
        ]

    def init(key: jax.Array, outputs: Any, teacher: Any) -> dict[str, Any]:
        heads = {}
        for i, both in enumerate(found(outputs, teacher)):
            keys = jax.random.split(jax.random.fold_in(key, i))
            heads[f"pair_{i}"] = {
                whose: base.dense(k, _elements(x), int(size))
                for whose, k, x in zip(("student", "teacher"), keys, both, strict=True)
            }
        return heads

    def term(
        outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any
    ) -> jax.Array:
        weight = batch["weight"]
        other = 1 - jnp.eye(weight.shape[0])
        if negatives == "classes":
            label = base.label("crd", batch)
            other = (label[:, None] != label[None, :]).astype(jnp.float32)
        other = other * (weight[:, None] * weight[None, :] > 0)
        total = 0.0
        for i, (a, b) in enumerate(found(outputs, teacher)):
            head = heads[f"pair_{i}"]

            def placed(x, whose, head=head):
                x = base.flat(weighting.real(x, weight))
                return base.normalised(base.mapped(head[whose], x))

            s = placed(a, "student")
            t = placed(lax.stop_gradient(b), "teacher")
            alike = s @ t.T / temperature
            for near in (alike, alike.T):
                aside = other * weight[None, :]
                count = jnp.maximum(jnp.sum(aside, axis=-1, keepdims=True), 1)
                h = near - jnp.log(count / examples)
                known = -jax.nn.log_sigmoid(jnp.diagonal(h))
                told_apart = -jnp.sum(aside * jax.nn.log_sigmoid(-h), axis=-1)
                total += weighting.weighted_mean(known + told_apart, weight)
        return total

    return base.Headed(init, term)


def _elements(x: Any) -> int:
    """Returns how many elements an example's feature has."""
    count = 1
    for n in x.shape[1:]:
        count *= n
    return count
