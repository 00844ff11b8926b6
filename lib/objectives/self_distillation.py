"""Self-distillation: a network's own last layer teaches its earlier ones."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors
from lib.objectives import base, checks, distillation, task, weighting


def self_distill(
    *, features: tuple[str, ...], share: float | jax.Array, temperature: float
) -> base.Headed:
    """Returns the loss of exits (Zhang et al. 2019, arXiv 1905.08094, eq. 2 and 3).

    Each named feature of the student gets an exit of its own: its mean over all axes
    but the first and last, and a learned affine map to logits, which is thrown away
    with the other heads. An exit contributes `(1 - a)` times the cross-entropy with
    the labels and `a T**2` times the divergence from the network's own last logits,
    which no gradient reaches this way. Exits add up; the mean goes over
    `batch["weight"]`. No teacher is needed. The paper's third part, a distance of
    features, is left out, and its exits have layers before the mean.

    Args:
      features: names, at least one, `[B, ..., C]`.
      share: a, in [0, 1]. May be traced.
      temperature: T, above 0. May be traced.

    Raises:
      UserError: a setting out of its range; when traced, if a feature is unknown.
    """
    if not features or isinstance(features, str):
        raise errors.UserError(
            f"self_distill.features: expected a tuple of names, got {features!r}"
        )
    checks.number("self_distill.share", share, low=0, high=1)
    checks.number("self_distill.temperature", temperature, low=0, low_open=True)

    def found(outputs: Any) -> list[Any]:
        return [base.feature("self_distill", "student", outputs, n) for n in features]

    def init(key: jax.Array, outputs: Any, teacher: Any) -> dict[str, Any]:
        del teacher
        keys = jax.random.split(key, len(features))
        classes = outputs[0].shape[-1]
        return {
            f"exit_{i}": base.dense(keys[i], x.shape[-1], classes)
            for i, x in enumerate(found(outputs))
        }

    def term(
        outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any
    ) -> jax.Array:
        last = lax.stop_gradient(outputs[0]) / temperature
        total = 0.0
        for i, x in enumerate(found(outputs)):
            mean = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
            logits = base.mapped(heads[f"exit_{i}"], mean)
            soft = distillation.divergence(last, logits / temperature)
            hard = task.given_loss(logits, batch)
            each = (1 - share) * hard + share * temperature**2 * soft
            total += weighting.weighted_mean(each, batch["weight"])
        return total

    return base.Headed(init, term)
