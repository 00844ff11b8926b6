"""The yardstick: training written by hand in JAX, Flax and optax, without Pare.

What a careful author would write for one job: images stay on the device and are
gathered by index inside the jitted step, buffers are donated, several steps go into
one call by `lax.scan`. Gradients are those of the mean cross-entropy; each step
returns loss and accuracy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

# (params, variables, images [B, H, W, C]) -> (logits [B, classes], variables)
Apply = Callable[..., tuple[jax.Array, Any]]


def optimizer(
    learning_rate: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns AdamW with decay on the kernels."""

    def kernels(params):
        return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=kernels)


def start(tx: optax.GradientTransformation, params: Any, variables: Any) -> Any:
    """Returns the state before the first step; its buffers are its own."""
    params, variables = jax.tree.map(jnp.copy, (params, variables))
    return params, variables, tx.init(params)


def make(apply: Apply, tx: optax.GradientTransformation, mean: float, std: float):
    """Returns the jitted `(state, index, data) -> (state, metrics)`.

    Args:
      apply: the model in training mode.
      tx: the optimiser.
      mean: of the pixels.
      std: of the pixels.

    The function takes int32 index `[steps, batch]` into `data`,
    `{"input": uint8 [N, H, W, C], "label": int32 [N]}`, and donates its state.
    """

    def loss_of(params, variables, images, labels):
        logits, variables = apply(params, variables, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        loss = losses.mean()
        accuracy = (logits.argmax(-1) == labels).mean()
        return loss, ({"loss": loss, "accuracy": accuracy}, variables)

    def step(state, index, data):
        params, variables, slots = state
        images = jnp.take(data["input"], index, 0, mode="clip").astype(jnp.float32)
        images = (images - mean) * (1 / std)
        labels = jnp.take(data["label"], index, 0, mode="clip")
        differentiate = jax.grad(loss_of, has_aux=True)
        grads, (metrics, variables) = differentiate(params, variables, images, labels)
        updates, slots = tx.update(grads, slots, params)
        return (optax.apply_updates(params, updates), variables, slots), metrics

    def run(state, index, data):
        if index.shape[0] == 1:  # as Pare's: XLA's CPU convolutions dislike a scan
            state, metrics = step(state, index[0], data)
            return state, jax.tree.map(lambda m: m[None], metrics)
        return lax.scan(lambda s, i: step(s, i, data), state, index)

    return jax.jit(run, donate_argnums=0)
