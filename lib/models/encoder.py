"""The encoder of BERT and its smaller relatives: Devlin et al. 2018 (1810.04805)."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks
from lib.models.attention import NORMAL, Attended, Attention
from lib.models.dropout import Dropout

GELUS = {
    "exact": functools.partial(nn.gelu, approximate=False),
    "tanh": functools.partial(nn.gelu, approximate=True),
}
POOLERS = {"tanh": jnp.tanh, "relu": nn.relu}


def dense(width: int, name: str) -> nn.Dense:
    """Returns a dense layer with BERT's initialisation."""
    return nn.Dense(width, kernel_init=NORMAL, name=name)


class Block(nn.Module):
    """Attention, then two dense layers, each residual and followed by layer norm.

    Layers: `attention` (see `Attention`), `norm_0`, `dense_0`, `dense_1`, `norm_1`.

    Attributes:
      heads: as of `Encoder`.
      intermediate: as of `Encoder`.
      gelu: as of `Encoder`.
      epsilon: as of `Encoder`.
      dropout: as of `Encoder`.
    """

    heads: int
    intermediate: int
    gelu: str
    epsilon: float
    dropout: float

    @nn.compact
    def __call__(
        self, x: jax.Array, allowed: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Attended]:
        """Returns the tokens `[B, L, W]` after the block, and its attention."""
        drop = Dropout(self.dropout, deterministic=not train)
        attention = Attention(self.heads, self.dropout, name="attention")
        attended = attention(x, allowed, train=train)
        x = nn.LayerNorm(self.epsilon, name="norm_0")(x + drop(attended.out))
        y = GELUS[self.gelu](dense(self.intermediate, "dense_0")(x))
        y = dense(x.shape[-1], "dense_1")(y)
        return nn.LayerNorm(self.epsilon, name="norm_1")(x + drop(y)), attended


class Encoder(nn.Module):
    """Embedded tokens, post-norm blocks, one vector of the text, logits.

    By its fields it is BERT, TinyBERT (arXiv 1909.10351) or MiniLM (2002.10957) as it
    stands; DistilBERT (1910.01108) with `types=0` and `pooler="relu"`; ALBERT
    (1909.11942) with `embedding=128` (its factorised embedding: what `factorize` makes
    of a whole one), `share=True` and `gelu="tanh"`. `share` computes what the technique
    `tie` of all blocks does, with one block's weights in the params where `tie` has
    them in its code.

    Ids are padded with `pad`, at either end, and padding is looked at by nobody. Where
    there are types, tokens behind the first `separator` are of type 1, all others and
    the padding of type 0.

    Layers: `tokens`, `positions` and `types` (embeddings), `embed_norm`,
    `embed_project` (with `embedding`), `block_0`, ... (see `Block`; with `share` only
    `block_0`), `pooler` (unless it is ""), `logits`.
    Features: `embed` and, for each block i, `block_i` `[B, L, W]`; `scores_i`
    `[B, heads, L, L]`, `query_i`, `key_i` and `value_i` `[B, heads, L, D]` (see
    `Attended`); `mask` bool `[B, L]`, True = a token; `pooled` `[B, W]`, before
    dropout.

    Attributes:
      classes: number of logits.
      layers: number of blocks.
      width: channels of a token (W); a multiple of `heads`.
      heads: attention heads.
      intermediate: units of a block's hidden dense layer.
      vocabulary: number of ids.
      max_length: tokens of the longest text.
      types: kinds of tokens, such as first and second sentence; 0 for none.
      embedding: channels of the embeddings, which `embed_project` brings to `width`; 0:
        they have `width` channels, without that layer.
      share: whether all blocks are one.
      pad: the id of padding; -1 for none.
      separator: the id behind which type 1 begins; -1 for none.
      gelu: "exact", or its approximation "tanh".
      epsilon: of the layer norms.
      pooling: the vector of a text: "cls", its first place, or "mean", over its tokens.
      pooler: a dense layer after that, with "tanh" or "relu"; "" for none.
      dropout: fraction dropped in training: of embeddings, attention weights, branches
        and the pooled vector, in [0, 1).
    """

    classes: int
    layers: int = 2
    width: int = 128
    heads: int = 2
    intermediate: int = 512
    vocabulary: int = 30522
    max_length: int = 512
    types: int = 2
    embedding: int = 0
    share: bool = False
    pad: int = 0
    separator: int = 102
    gelu: str = "exact"
    epsilon: float = 1e-12
    pooling: str = "cls"
    pooler: str = "tanh"
    dropout: float = 0.1

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "layers", "width", "heads", "intermediate")
        checks.counts(self, "vocabulary", "max_length")
        checks.whole(self, "types", "embedding", least=0)
        checks.whole(self, "pad", "separator", least=-1)
        checks.flags(self, "share")
        checks.fractions(self, "dropout", "epsilon")
        checks.heads(self)
        checks.choice(self, "gelu", GELUS)
        checks.choice(self, "pooling", ("cls", "mean"))
        checks.choice(self, "pooler", ("", *POOLERS))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, ids: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of ids `[B, L]`, whole numbers."""
        checks.ids(self, ids)
        mask = ids != self.pad
        x = self._embedded(ids, mask, train)
        features = {"embed": x, "mask": mask}
        allowed = mask[:, None, None]
        for i in range(self.layers):
            if i == 0 or not self.share:
                block = Block(
                    self.heads,
                    self.intermediate,
                    self.gelu,
                    self.epsilon,
                    self.dropout,
                    name=f"block_{i}",
                )
            x, attended = block(x, allowed, train=train)
            features[f"block_{i}"] = x
            features.update(attended.named(i))
        if self.pooling == "cls":
            x = x[:, 0]
        else:
            x = mean_of_tokens(x, mask)
        if self.pooler:
            x = POOLERS[self.pooler](dense(self.width, "pooler")(x))
        features["pooled"] = x
        x = Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.classes, "logits")(x), features

    def _embedded(self, ids: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Returns what enters the first block, `[B, L, W]`."""
        table = functools.partial(
            nn.Embed,
            features=self.embedding or self.width,
            embedding_init=NORMAL,
        )
        x = table(self.vocabulary, name="tokens")(ids)
        places = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
        x = x + table(self.max_length, name="positions")(places)
        if self.types:
            ends = jnp.where(ids == self.separator, places, ids.shape[1])
            behind = (places > jnp.min(ends, axis=1, keepdims=True)) & mask
            x = x + table(self.types, name="types")(behind.astype(jnp.int32))
        x = nn.LayerNorm(self.epsilon, name="embed_norm")(x)
        x = Dropout(self.dropout, deterministic=not train)(x)
        if self.embedding:
            x = dense(self.width, "embed_project")(x)
        return x


def mean_of_tokens(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of x `[B, L, W]` over the places where mask `[B, L]` is True.

    It is 0 where no place is.
    """
    weight = mask[..., None].astype(x.dtype)
    return jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)
