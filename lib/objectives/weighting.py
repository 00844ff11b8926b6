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
