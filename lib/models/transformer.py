"""A small transformer encoder on the patches of an image."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks
from lib.models.dropout import Dropout


class Block(nn.Module):
    """One pre-norm encoder block: attention, then two dense layers, each residual.

    Layers: `norm_0`, `attention` (`query`, `key`, `value`, `out`), `norm_1`,
    `dense_0`, `dense_1`.

    Attributes:
      heads: attention heads; a divisor of the width.
      expansion: units of `dense_0` for each unit of width.
      dropout: fraction dropped of the attention weights and of both branches.
    """

    heads: int
    expansion: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the tokens `[B, tokens, width]` after the block."""
        width = x.shape[-1]
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dropout_rate=self.dropout,
            deterministic=not train,
            name="attention",
        )
        y = attention(nn.LayerNorm(name="norm_0")(x))
        x = x + Dropout(self.dropout, deterministic=not train)(y)
        y = nn.LayerNorm(name="norm_1")(x)
        y = nn.gelu(nn.Dense(self.expansion * width, name="dense_0")(y))
        y = nn.Dense(width, name="dense_1")(y)
        return x + Dropout(self.dropout, deterministic=not train)(y)


class Transformer(nn.Module):
    """Square patches, learned positions, pre-norm blocks, mean over the tokens.

    A vision transformer (arXiv 2010.11929) without a class token.

    Layers: `embed`, the parameter `positions` `[1, tokens, width]`, `block_0`, ...
    (see `Block`), `norm`, `logits`.
    Features: `embed` and `block_i` `[B, tokens, width]`, `pooled` `[B, width]`.

    Attributes:
      classes: number of logits.
      layers: number of blocks.
      width: channels of a token; a multiple of `heads`.
      heads: attention heads.
      expansion: units of a block's hidden dense layer for each unit of width.
      patch: side of a patch in pixels; divides the height and width of the images.
      dropout: fraction dropped in each block in training, in [0, 1).
    """

    classes: int
    layers: int = 2
    width: int = 64
    heads: int = 4
    expansion: int = 4
    patch: int = 4
    dropout: float = 0.0

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "layers", "width", "heads", "expansion", "patch")
        checks.fractions(self, "dropout")
        checks.heads(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=self.patch)
        x = nn.Dense(self.width, name="embed")(self._patches(images))
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (1, *x.shape[1:])
        )
        x = x + positions
        features = {"embed": x}
        for i in range(self.layers):
            block = Block(self.heads, self.expansion, self.dropout, name=f"block_{i}")
            x = features[f"block_{i}"] = block(x, train=train)
        x = features["pooled"] = jnp.mean(nn.LayerNorm(name="norm")(x), axis=1)
        return nn.Dense(self.classes, name="logits")(x), features

    def _patches(self, images: jax.Array) -> jax.Array:
        """Returns `[B, tokens, patch * patch * C]`, tokens row by row."""
        p = self.patch
        b, h, w, c = images.shape
        checks.patches(self, images)
        x = images.reshape((b, h // p, p, w // p, p, c))
        return x.transpose((0, 1, 3, 2, 4, 5)).reshape((b, -1, p * p * c))
