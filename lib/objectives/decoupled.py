"""Decoupled distillation: the label's probability, and the others among themselves."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import base, checks, weighting


def dkd(
    *,
    target: float | jax.Array,
    others: float | jax.Array,
    temperature: float | jax.Array,
) -> base.Term:
    """Returns `T**2 (a TCKD + b NCKD)` (Zhao et al. 2022, arXiv 2203.08679, eq. 7).

    TCKD is the divergence of (label, not label) as two outcomes, NCKD that of the
    classes but the label, made to add up to 1; both of softmax(logits / T), from the
    teacher's to the student's, in nats. `distill` is the same with b replaced, in each
    example, by the teacher's probability of not the label. The mean goes over
    `batch["weight"]`; no gradient reaches the teacher.

    Args:
      target: a, of TCKD, at least 0; 1 in the paper. May be traced.
      others: b, of NCKD, at least 0; from 1 to 10 in the paper. May be traced.
      temperature: T, above 0. May be traced.

    The term raises a `UserError`, when traced, as `distill` does, or if labels were
    mixed.
    """
    checks.number("dkd.target", target, low=0)
    checks.number("dkd.others", others, low=0)
    checks.number("dkd.temperature", temperature, low=0, low_open=True)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        student, taught = base.taught("dkd", outputs, teacher)
        is_label = jax.nn.one_hot(base.label("dkd", batch), student.shape[-1]) > 0

        def parted(logits):
            """Log-probabilities: of the label, of not it, of the others among them."""
            log_p = jax.nn.log_softmax(logits / temperature)
            label = jnp.sum(jnp.where(is_label, log_p, 0), axis=-1)
            rest = jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, log_p), axis=-1)
            return label, rest, jnp.where(is_label, 0, log_p - rest[:, None])

        p_label, p_rest, p_others = parted(taught)
        q_label, q_rest, q_others = parted(student)
        tckd = jnp.exp(p_label) * (p_label - q_label)
        tckd += jnp.exp(p_rest) * (p_rest - q_rest)
        nckd = jnp.sum(jnp.exp(p_others) * (p_others - q_others), axis=-1)
        mean = weighting.weighted_mean(target * tckd + others * nckd, batch["weight"])
        return temperature**2 * mean

    return term
