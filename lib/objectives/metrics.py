"""Metrics as sums, so that those of a whole split are exact whatever its batches."""

from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import task, weighting


def classification(outputs: Any, batch: Any) -> dict[str, jax.Array]:
    """Returns sums over the real examples of one batch, float32 scalars.

    Add them up over the batches of a split; accuracy is `correct / count` and the
    mean cross-entropy `loss / count`, in nats, without label smoothing or penalties.

    Args:
      outputs: (logits `[B, classes]`, features).
      batch: `label` int `[B]` and `weight` `[B]`, 0 for padding.

    Returns:
      `correct`: how many have their label's logit as the (first) largest; `loss`: sum
      of cross-entropies; `count`: how many there are.
    """
    logits, _ = outputs
    label, weight = batch["label"], batch["weight"]
    hit = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
    loss = task.label_loss(logits, label)
    return {
        "correct": weighting.weighted_sum(hit, weight),
        "loss": weighting.weighted_sum(loss, weight),
        "count": jnp.sum(weight),
    }
