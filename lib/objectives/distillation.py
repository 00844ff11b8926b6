"""What a student learns from a teacher."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors
from lib.objectives import checks, weighting

Term = Callable[..., jax.Array]  # (outputs, batch, params, teacher) -> scalar


def distill(*, temperature: float | jax.Array) -> Term:
    """Returns the divergence of the student's softened outputs from the teacher's.

    An example contributes `T**2 KL(softmax(t / T) || softmax(s / T))`, in nats, with
    the teacher's logits t and the student's s (Hinton et al. 2015, arXiv 1503.02531,
    section 2); the mean goes over `batch["weight"]`. T**2 keeps the gradient's size
    whatever T is. Differs from the paper's cross-entropy by the teacher's entropy,
    which no gradient sees, and is 0 where the two agree. No gradient reaches the
    teacher.

    Args:
      temperature: T, above 0. May be traced.

    The term raises a `UserError`, when traced, if there is no teacher or if its
    logits have another shape.
    """
    checks.number("distill.temperature", temperature, low=0, low_open=True)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        if teacher is None:
            raise errors.UserError(
                "term 'distill' needs a teacher, and this stage has none"
            )
        student, target = outputs[0], lax.stop_gradient(teacher[0])
        if student.shape != target.shape:
            raise errors.UserError(
                f"term 'distill': the teacher's logits {target.shape} "
                f"and the student's {student.shape} differ in shape"
            )
        log_p = jax.nn.log_softmax(target / temperature)
        log_q = jax.nn.log_softmax(student / temperature)
        divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
        mean = weighting.weighted_mean(divergence, batch["weight"])
        return temperature**2 * mean

    return term
