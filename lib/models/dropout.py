"""Dropout whose rate may be data, so that runs at other rates are one program."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class Dropout(nn.Module):
    """Drops units and scales up what is left (arXiv 1207.0580).

    Draws what `flax.linen.Dropout` draws, which has to know its rate.

    Attributes:
      rate: fraction dropped, in [0, 1); a number, or a scalar that is traced.
      deterministic: whether nothing is dropped.
      broadcast_dims: axes along which units are dropped together.
    """

    rate: Any
    deterministic: bool
    broadcast_dims: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the units with some of them zero."""
        known = not isinstance(self.rate, jax.core.Tracer)
        if self.deterministic or (known and self.rate == 0):
            return x
        keep = 1.0 - self.rate
        shape = [1 if i in self.broadcast_dims else n for i, n in enumerate(x.shape)]
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return lax.select(jnp.broadcast_to(mask, x.shape), x / keep, jnp.zeros_like(x))
