"""Sums and means over the real examples of a batch."""

import jax
import jax.numpy as jnp


def weighted_sum(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `sum(values * weight)`, where weight 0 hides even a NaN.

    Args:
      values: `[B]`.
      weight: `[B]`, 1 for a real example, 0 for padding.
    """
    return jnp.sum(jnp.where(weight > 0, values * weight, 0))


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `weighted_sum(values, weight) / sum(weight)`; 0 where no weight is left.

    Args:
      values: `[B]`.
      weight: `[B]`, 1 for a real example, 0 for padding.
    """
    total = jnp.sum(weight)
    return weighted_sum(values, weight) / jnp.where(total > 0, total, 1)


def real(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `x` with zeros for the examples of weight 0, so that no NaN spreads.

    Args:
      x: `[B, ...]`.
      weight: `[B]`.
    """
    return jnp.where(weight.reshape((-1,) + (1,) * (x.ndim - 1)) > 0, x, 0)


def pair_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the mean over pairs; 0 where no weight is left.

    Args:
      values: `[B, B]`, finite.
      weight: `[B, B]` or `[B]`, of examples: a pair then weighs their product.
    """
    if weight.ndim == 1:
        weight = weight[:, None] * weight[None, :]
    total = jnp.sum(weight)
    return jnp.sum(values * weight) / jnp.where(total > 0, total, 1)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of each example's values where `mask` holds, `[B]`.

    Args:
      values: `[B, ...]`.
      mask: bool of the same shape, or one that broadcasts to it; where it is False,
        not even a NaN counts. An example without any True gives 0.
    """
    axes = tuple(range(1, values.ndim))
    mask = jnp.broadcast_to(mask, values.shape)
    count = jnp.sum(mask, axis=axes)
    total = jnp.sum(jnp.where(mask, values, 0), axis=axes)
    return total / jnp.maximum(count, 1)
