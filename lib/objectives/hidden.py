"""Hidden states and embeddings of transformers, token by token."""

from typing import Any

import jax
import jax.numpy as jnp

from lib import errors
from lib.objectives import base, weighting


def _square(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def _unit(student: jax.Array, teacher: jax.Array) -> jax.Array:
    off = base.normalised(student) - base.normalised(teacher)
    return jnp.sum(jnp.square(off), axis=-1)


def _cosine(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return 1 - jnp.sum(base.normalised(student) * base.normalised(teacher), axis=-1)


# name -> (student, teacher) `[..., W]` -> `[...]`.
DISTANCES = {"mse": _square, "unit": _unit, "cosine": _cosine}

PROJECTIONS = ("learned", "identity")
TOKENS = ("all", "first")


def mask(outputs: Any, like: jax.Array) -> jax.Array:
    """Returns bool `[B, L]`: where a feature `[B, L, W]` has tokens, not padding."""
    if "mask" in outputs[1]:
        return outputs[1]["mask"]
    return jnp.ones(like.shape[:2], bool)


def _states(
    name: str, pairs: base.Pairs, projection: str, distance: str, tokens: str
) -> base.Term | base.Headed:
    base.check_pairs(name, pairs)
    errors.lookup(dict.fromkeys(PROJECTIONS), projection, "projection")
    errors.lookup(dict.fromkeys(TOKENS), tokens, "kind of tokens")
    measure = errors.lookup(DISTANCES, distance, "distance of hidden states")

    def found(outputs: Any, teacher: Any) -> list[tuple[Any, Any]]:
        both = base.paired(name, pairs, outputs, teacher, axes=(2, 3))
        for pair, (a, b) in zip(pairs, both, strict=True):
            if a.shape[:-1] != b.shape[:-1]:
                base.unfit(name, pair, a, b, "expected as many tokens of both")
            if projection == "identity" and a.shape != b.shape:
                why = "widths differ; set projection='learned'"
                base.unfit(name, pair, a, b, why)
        return both

    def init(key: jax.Array, outputs: Any, teacher: Any) -> dict[str, Any]:
        keys = jax.random.split(key, len(pairs))
        return {
            f"pair_{i}": base.dense(keys[i], a.shape[-1], b.shape[-1])
            for i, (a, b) in enumerate(found(outputs, teacher))
        }

    def term(
        outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any = None
    ) -> jax.Array:
        total = 0.0
        for i, (a, b) in enumerate(found(outputs, teacher)):
            if a.ndim == 3 and tokens == "first":
                a, b = a[:, 0], b[:, 0]
            if heads:
                a = base.mapped(heads[f"pair_{i}"], a)
            each = measure(a, b)
            if each.ndim == 2:
                each = weighting.masked_mean(each, mask(outputs, a))
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return base.Headed(init, term) if projection == "learned" else term


def hidden(
    *, pairs: base.Pairs, projection: str, distance: str, tokens: str
) -> base.Term | base.Headed:
    """Returns the distance of the student's hidden states from the teacher's.

    A mean over an example's tokens, as `features["mask"]` tells them from padding (all
    where a model has no mask), then over `batch["weight"]`; pairs add up and are the
    mapping of layers. No gradient reaches the teacher. As papers have it:

      TinyBERT (Jiao et al. 2020, arXiv 1909.10351, eq. 8): learned, "mse", "all"
      PKD (Sun et al. 2019, arXiv 1908.09355, eq. 7): identity, "unit", "first"
      DistilBERT (Sanh et al. 2019, arXiv 1910.01108): identity, "cosine", "all"

    Args:
      pairs: (student's feature, teacher's feature), both `[B, L, W]` or both `[B, W]`.
      projection: "learned", an affine map from the student's width to the teacher's,
        one for each pair (TinyBERT has one for all); or "identity", for equal widths.
      distance: "mse", the mean over the width of squares; "unit", the sum of squares
        between vectors of length 1; or "cosine", 1 - the cosine.
      tokens: "all", or "first": the one that stands for the whole text.

    Raises:
      UserError: an unknown choice; when traced, if there is no teacher, a feature is
        unknown, or shapes do not fit.
    """
    return _states("hidden", pairs, projection, distance, tokens)


def embeddings(*, pairs: base.Pairs, projection: str) -> base.Term | base.Headed:
    """Returns the mean square of embeddings (TinyBERT, arXiv 1909.10351, eq. 9).

    `hidden` with "mse" over all tokens, under a name and with a weight of its own.

    Args:
      pairs: (student's feature, teacher's feature), as in `hidden`.
      projection: as in `hidden`.
    """
    return _states("embeddings", pairs, projection, "mse", "all")
