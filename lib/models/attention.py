"""Attention whose parts have names, for the models of text."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lib.models.dropout import Dropout

# In the place of scores that must not count: its exponential is 0 beside any other
# score, and it is finite, in half precision too, so that ranges stay finite.
MASKED = -1e4

# The initialisation of BERT (arXiv 1810.04805) and GPT-2.
NORMAL = nn.initializers.normal(0.02)


class Attended(NamedTuple):
    """What one attention computed.

    Attributes:
      out: `[B, L, W]`.
      scores: `[B, heads, L, L]`, before softmax, `MASKED` where nothing is looked at.
      query: `[B, heads, L, D]`.
      key: `[B, heads, L, D]`.
      value: `[B, heads, L, D]`.
    """

    out: jax.Array
    scores: jax.Array
    query: jax.Array
    key: jax.Array
    value: jax.Array

    def named(self, block: int) -> dict[str, jax.Array]:
        """Returns the features of a block's attention: `scores_0`, `query_0`, ..."""
        return {
            f"scores_{block}": self.scores,
            f"query_{block}": self.query,
            f"key_{block}": self.key,
            f"value_{block}": self.value,
        }


class Attention(nn.Module):
    """Scaled dot-product attention of a sequence to itself (arXiv 1706.03762, eq. 1).

    Layers: `query`, `key`, `value` with kernels `[W, heads, D]`, `out` with the kernel
    `[heads, D, W]`, all with bias, D = W / heads. Its own two products stand in the
    scopes `scores` and `mixed`.

    Attributes:
      heads: a divisor of the width.
      dropout: fraction of the attention weights dropped in training, in [0, 1).
    """

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, allowed: jax.Array, *, train: bool) -> Attended:
        """Returns what each place of x `[B, L, W]` gathers from those it may look at.

        Args:
          x: the tokens.
          allowed: bool, True where the place of the third axis may look at that of the
            fourth; broadcasts to `[B, heads, L, L]`.
          train: whether weights are dropped.
        """
        width = x.shape[-1]
        size = width // self.heads

        def headed(name: str) -> jax.Array:
            dense = nn.DenseGeneral((self.heads, size), kernel_init=NORMAL, name=name)
            return dense(x).transpose((0, 2, 1, 3))

        query, key, value = headed("query"), headed("key"), headed("value")
        with jax.named_scope("scores"):
            scores = jnp.matmul(query, key.swapaxes(2, 3)) / np.sqrt(size)
        scores = jnp.where(allowed, scores, MASKED)
        weights = nn.softmax(scores)
        weights = Dropout(self.dropout, deterministic=not train)(weights)
        with jax.named_scope("mixed"):
            mixed = jnp.matmul(weights, value).transpose((0, 2, 1, 3))
        out = nn.DenseGeneral(width, (-2, -1), kernel_init=NORMAL, name="out")(mixed)
        return Attended(out, scores, query, key, value)
