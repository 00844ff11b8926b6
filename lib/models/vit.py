"""The vision transformer: Dosovitskiy et al. 2020 (2010.11929)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors
from lib.models import checks, convolution
from lib.models.dropout import Dropout

POOLS = ("token", "mean")

_EPSILON = 1e-6  # of layer norm
_XAVIER = nn.initializers.xavier_uniform()


class Attention(nn.Module):
    """Each token's mean of all tokens' values, by how well its query meets their keys.

    Layers: `query`, `key`, `value`, `out`, whose kernels are `[width, width]`.

    Attributes:
      heads: attention heads; a divisor of the width.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, tokens, width]` of tokens of the same shape."""
        width = x.shape[-1]

        def heads(name):
            y = nn.Dense(width, kernel_init=_XAVIER, name=name)(x)
            return y.reshape((*x.shape[:2], self.heads, width // self.heads))

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
        shares = nn.softmax(scores / (width // self.heads) ** 0.5)
        y = jnp.einsum("bhqk,bkhd->bqhd", shares, value).reshape(x.shape)
        return nn.Dense(width, kernel_init=_XAVIER, name="out")(y)


class Block(nn.Module):
    """One pre-norm encoder block: attention, then two dense layers, each residual.

    Layers: `norm_0`, `attention` (see `Attention`), `norm_1`, `dense_0`, `dense_1`.

    Attributes:
      heads: attention heads.
      expansion: units of `dense_0` for each unit of width.
      dropout: fraction dropped of what attention and either dense layer give.
      drop_path: share of the examples that go without a branch in training.
    """

    heads: int
    expansion: int
    dropout: float
    drop_path: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the tokens `[B, tokens, width]` after the block."""
        width = x.shape[-1]

        def dropped(y):
            return Dropout(self.dropout, deterministic=not train)(y)

        y = nn.LayerNorm(_EPSILON, name="norm_0")(x)
        y = dropped(Attention(self.heads, name="attention")(y))
        x = x + convolution.without_some(y, self.drop_path, train)
        y = nn.LayerNorm(_EPSILON, name="norm_1")(x)
        wide = nn.Dense(self.expansion * width, kernel_init=_XAVIER, name="dense_0")
        y = dropped(nn.gelu(wide(y), approximate=False))
        y = dropped(nn.Dense(width, kernel_init=_XAVIER, name="dense_1")(y))
        return x + convolution.without_some(y, self.drop_path, train)


class ViT(nn.Module):
    """Square patches, a class token or none, learned positions, pre-norm blocks.

    ViT-Ti/16 and ViT-S/16 (2012.12877) are `width` 192 and 384 with `heads` 3 and 6; on
    224x224 images and 1000 classes they have 5.7 and 22.1 million parameters. The
    number of positions is that of the patches of the images it was made for.

    Layers: `embed` (a convolution), the parameters `token` `[1, 1, width]` and
    `positions` `[1, tokens, width]`, `block_0`, ... (see `Block`), `norm`, `logits`.
    Features: `embed` and `block_i` `[B, tokens, width]`, `pooled` `[B, width]`.

    Attributes:
      classes: number of logits.
      layers: number of blocks.
      width: channels of a token; a multiple of `heads`.
      heads: attention heads.
      expansion: units of a block's hidden dense layer for each unit of width.
      patch: side of a patch in pixels; divides the height and width of the images.
      pool: "token": the logits are of a class token, the first; "mean": there is none,
        and they are of the mean over the tokens.
      dropout: fraction dropped of the tokens and in each block in training, in [0, 1).
      drop_path: share of the examples that go without the last block's branches in
        training, in [0, 1); it rises evenly from 0 for the first block.
    """

    classes: int
    layers: int = 12
    width: int = 192
    heads: int = 3
    expansion: int = 4
    patch: int = 16
    pool: str = "token"
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "layers", "width", "heads", "expansion", "patch")
        checks.choice(self, "pool", POOLS)
        checks.fractions(self, "dropout", "drop_path")
        if self.width % self.heads:
            raise errors.UserError(
                f"ViT.width: expected a multiple of the {self.heads} heads, "
                f"got {self.width}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=self.patch)
        checks.patches(self, images)
        side = (self.patch, self.patch)
        x = nn.Conv(self.width, side, side, padding="VALID", name="embed")(images)
        x = x.reshape((x.shape[0], -1, self.width))
        if self.pool == "token":
            token = self.param("token", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate((jnp.broadcast_to(token, x[:, :1].shape), x), axis=1)
        small = nn.initializers.normal(0.02)
        x = x + self.param("positions", small, (1, *x.shape[1:]))
        features = {"embed": x}
        x = Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.layers):
            drop_path = self.drop_path * i / max(self.layers - 1, 1)
            kind = (self.heads, self.expansion, self.dropout, drop_path)
            x = Block(*kind, name=f"block_{i}")(x, train=train)
            features[f"block_{i}"] = x
        x = nn.LayerNorm(_EPSILON, name="norm")(x)
        x = x[:, 0] if self.pool == "token" else jnp.mean(x, axis=1)
        features["pooled"] = x
        return nn.Dense(self.classes, name="logits")(x), features
