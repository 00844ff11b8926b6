"""What of a teacher's dark knowledge helps: born-again networks' two controls."""

from typing import Any

import jax
import jax.numpy as jnp

from lib import errors
from lib.objectives import base, task, weighting


def _confidence(student: jax.Array, teacher: jax.Array, batch: Any) -> jax.Array:
    """Cross-entropy with the labels, in proportion to the teacher's largest one."""
    largest = jnp.max(jax.nn.softmax(teacher), axis=-1)
    weight = batch["weight"]
    share = jnp.where(weight > 0, weight * largest, 0)
    return weighting.weighted_mean(task.given_loss(student, batch), share)


def _permuted(student: jax.Array, teacher: jax.Array, batch: Any) -> jax.Array:
    """Divergence from the teacher, all but its largest probability shuffled."""
    if "key" not in batch:
        raise errors.UserError(
            "term 'born_again': kind 'dkpp' draws, and this batch has no key"
        )
    order = jnp.argsort(-teacher, axis=-1)
    draw = jax.random.uniform(batch["key"], teacher[:, 1:].shape)
    shuffled = jnp.take_along_axis(order[:, 1:], jnp.argsort(draw, axis=-1), axis=-1)
    taken_from = jnp.concatenate([order[:, :1], shuffled], axis=-1)
    # The class order[i] gets the logit of the class taken_from[i].
    place = jnp.argsort(order, axis=-1)
    source = jnp.take_along_axis(taken_from, place, axis=-1)
    log_p = jax.nn.log_softmax(jnp.take_along_axis(teacher, source, axis=-1))
    each = jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(student)), axis=-1)
    return weighting.weighted_mean(each, batch["weight"])


# kind -> (student's logits, teacher's logits, batch) -> scalar.
KINDS = {"cwtm": _confidence, "dkpp": _permuted}


def born_again(*, kind: str) -> base.Term:
    """Returns a loss of born-again networks (Furlanello et al. 2018, arXiv 1805.04770).

    Args:
      kind: "cwtm", the cross-entropy with the labels, each example in proportion to
        the teacher's largest probability (eq. 9), or "dkpp", the divergence from the
        teacher's outputs with all but the largest of each example permuted at random
        (eq. 10), by the PRNG key `batch["key"]`. The paper's plain kind is `distill`
        with temperature 1.

    Examples count by `batch["weight"]`; no gradient reaches the teacher. The term
    raises a `UserError`, when traced, as `distill` does.
    """
    loss = errors.lookup(KINDS, kind, "kind of born-again network")

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        return loss(*base.taught("born_again", outputs, teacher), batch)

    return term
