"""Attention of transformers: its scores, its distributions, relations of its values."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from lib import errors
from lib.objectives import base, hidden, weighting


def _mask(outputs: Any, like: jax.Array) -> jax.Array:
    """Returns bool `[B, L]` for a feature `[B, heads, L, n]`."""
    return hidden.mask(outputs, like[:, 0])


def attention_scores(*, pairs: base.Pairs) -> base.Term:
    """Returns the mean square of attention's scores (TinyBERT, 1909.10351, eq. 7).

    Scores are those before the softmax. Of an example the mean goes over heads and
    over pairs of its tokens, not padding (`features["mask"]`), then over
    `batch["weight"]`; pairs of features add up. No gradient reaches the teacher.

    Args:
      pairs: (student's feature, teacher's feature), both `[B, heads, L, L]`.

    The term raises a `UserError`, when traced, if there is no teacher, a feature is
    unknown, or shapes differ.
    """
    base.check_pairs("attention_scores", pairs)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        total = 0.0
        found = base.paired("attention_scores", pairs, outputs, teacher, axes=(4,))
        for pair, (a, b) in zip(pairs, found, strict=True):
            if a.shape != b.shape:
                why = "expected as many heads and tokens of both"
                base.unfit("attention_scores", pair, a, b, why)
            mask = _mask(outputs, a)
            both = mask[:, None, :, None] & mask[:, None, None, :]
            each = weighting.masked_mean(jnp.square(a - b), both)
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return term


RELATIONS = ("scores", "query", "key", "value")


def minilm(
    *, student: int, teacher: int, relations: tuple[str, ...], heads: int
) -> base.Term:
    """Returns the divergence of relations between tokens (MiniLM, arXiv 2002.10957).

    A relation is a distribution over an example's tokens for each of them: attention's
    own, the softmax of "scores" (eq. 6), or the softmax of `X X^T / sqrt(D)` of
    queries, keys or values of D elements (eq. 8 to 9, MiniLMv2, arXiv 2012.15828, eq.
    2). Of each, KL(teacher || student) in nats, as a mean over heads and tokens that
    are not padding, then over `batch["weight"]`; relations add up. No gradient reaches
    the teacher.

    Args:
      student: number of the student's block; -1 for its last.
      teacher: number of the teacher's block.
      relations: of `RELATIONS`, at least one: ("scores", "value") is MiniLM, ("query",
        "key", "value") MiniLMv2.
      heads: into how many the queries, keys and values are split anew, so that those
        of the networks may differ; 0 leaves each as it is. Scores stay as they are.

    Raises:
      UserError: an unknown relation; when traced, if there is no teacher, a block does
        not exist, or shapes do not fit.
    """
    if not relations or isinstance(relations, str):
        raise errors.UserError(
            f"minilm.relations: expected a tuple of names, got {relations!r}"
        )
    for relation in relations:
        errors.lookup(dict.fromkeys(RELATIONS), relation, "relation of minilm")

    def read(whose: str, outputs: Any, block: int, relation: str):
        kept = re.compile(rf"{relation}_(\d+)")
        numbers = sorted(int(m[1]) for m in map(kept.fullmatch, outputs[1]) if m)
        number = numbers[block] if block < 0 and len(numbers) >= -block else block
        name = f"{relation}_{number}"
        x = base.feature("minilm", whose, outputs, name)
        if relation == "scores" or not heads:
            return name, x
        batch, old, length, size = x.shape
        if old * size % heads:
            raise errors.UserError(
                f"term 'minilm': the {whose}'s {name!r} has {old * size} elements, "
                f"which do not split into heads={heads}"
            )
        joined = x.transpose(0, 2, 1, 3).reshape(batch, length, heads, -1)
        return name, joined.transpose(0, 2, 1, 3)

    def logged(relation: str, x: jax.Array, mask: jax.Array) -> jax.Array:
        if relation != "scores":
            x = jnp.einsum("bhqd,bhkd->bhqk", x, x) / math.sqrt(x.shape[-1])
        keys = mask[:, None, None, :]
        # Finite, so that rows of padding have a slope, too.
        log_p = jax.nn.log_softmax(jnp.where(keys, x, -1e9))
        return jnp.where(keys, log_p, 0)

    def term(outputs: Any, batch: Any, params: Any, taught: Any) -> jax.Array:
        base.required("minilm", taught)
        total = 0.0
        for relation in relations:
            ours, a = read("student", outputs, student, relation)
            theirs, b = read("teacher", taught, teacher, relation)
            if a.shape[:3] != b.shape[:3]:
                why = "expected as many heads and tokens of both; heads=n splits anew"
                base.unfit("minilm", (ours, theirs), a, b, why)
            mask = _mask(outputs, a)
            log_q = logged(relation, a, mask)
            log_p = jax.lax.stop_gradient(logged(relation, b, mask))
            p = jnp.where(mask[:, None, None, :], jnp.exp(log_p), 0)
            each = jnp.sum(p * (log_p - log_q), axis=-1)
            each = weighting.masked_mean(each, mask[:, None, :])
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return term
