"""What a student learns from a teacher's logits."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import base, checks, weighting


def divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Returns `KL(softmax(teacher) || softmax(student))` `[...]`, in nats.

    Args:
      teacher: logits `[..., classes]`.
      student: logits of the same shape.
    """
    log_p, log_q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def distill(*, temperature: float | jax.Array) -> base.Term:
    """Returns the divergence of the student's softened outputs from the teacher's.

    An example contributes `T**2 KL(softmax(t / T) || softmax(s / T))`, in nats, with
    the teacher's logits t and the student's s (Hinton et al. 2015, arXiv 1503.02531,
    section 2); the mean goes over `batch["weight"]`. T**2 keeps the gradient's size
    whatever T is. Differs from the paper's cross-entropy by the teacher's entropy,
    which no gradient sees, and is 0 where the two agree. No gradient reaches the
    teacher. With T = 1 and a teacher of the student's own shape it is a born-again
    network (Furlanello et al. 2018, arXiv 1805.04770, eq. 4).

    Args:
      temperature: T, above 0. May be traced.

    The term raises a `UserError`, when traced, if there is no teacher or if its
    logits have another shape.
    """
    checks.number("distill.temperature", temperature, low=0, low_open=True)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        student, target = base.taught("distill", outputs, teacher)
        each = divergence(target / temperature, student / temperature)
        return temperature**2 * weighting.weighted_mean(each, batch["weight"])

    return term
