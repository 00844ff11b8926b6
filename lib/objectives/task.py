"""What the model is for: losses against the labels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lib.objectives import checks, weighting

Term = Callable[..., jax.Array]  # (outputs, batch, params, teacher) -> scalar


def label_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns `-log softmax(logits)[label]` `[B]`, in nats.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`; a label of `classes` or more gives NaN.
    """
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def given_loss(logits: jax.Array, batch: Any) -> jax.Array:
    """Returns the cross-entropy of each example with what it should be, in nats.

    Args:
      logits: `[B, classes]`.
      batch: its "target", shares of the classes `[B, classes]`, counts where mixup or
        cutmix left one, else its "label".
    """
    if "target" in batch:
        return -jnp.sum(batch["target"] * jax.nn.log_softmax(logits), axis=-1)
    return label_loss(logits, batch["label"])


def cross_entropy(*, label_smoothing: float | jax.Array) -> Term:
    """Returns the mean cross-entropy with the smoothed labels, in nats.

    With K classes, an example with label y contributes
    `-sum_k q_k log softmax(logits)_k`, `q_k = (1 - e) [k = y] + e / K`
    (Szegedy et al. 2016, arXiv 1512.00567, section 7); one whose label was mixed with
    another's, `q_k = (1 - e) target_k + e / K`. The mean goes over `batch["weight"]`.

    Args:
      label_smoothing: e, in [0, 1); 0 gives plain cross-entropy. May be traced.
    """
    checks.number(
        "cross_entropy.label_smoothing", label_smoothing, low=0, high=1, high_open=True
    )

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        logits, _ = outputs
        hard = given_loss(logits, batch)
        uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        loss = (1 - label_smoothing) * hard + label_smoothing * uniform
        return weighting.weighted_mean(loss, batch["weight"])

    return term


def squared_hinge() -> Term:
    """Returns the L2-SVM's loss of one class against the rest (Tang 2013, 1306.0239).

    An example with label y contributes `sum_k max(0, 1 - t_k logit_k)^2` with `t_k` 1
    for k = y and -1 for the others; one whose label was mixed with others', the mean of
    this over the labels, weighted by `batch["target"]`. The mean goes over
    `batch["weight"]`.
    """

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        logits, _ = outputs
        if "target" in batch:
            target = batch["target"]
        else:
            target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        as_one = jnp.square(jax.nn.relu(1 - logits))
        as_other = jnp.square(jax.nn.relu(1 + logits))
        loss = jnp.sum(target * as_one + (1 - target) * as_other, axis=-1)
        return weighting.weighted_mean(loss, batch["weight"])

    return term
