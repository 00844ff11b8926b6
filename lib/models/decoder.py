"""The decoder of GPT-2, at any size: Radford et al. 2019."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lib import errors
from lib.models import checks
from lib.models.attention import NORMAL, Attended, Attention
from lib.models.dropout import Dropout
from lib.models.encoder import GELUS, dense

TASKS = ("classify", "next")


class Block(nn.Module):
    """Layer norm and attention, then layer norm and two dense layers, each residual.

    Layers: `norm_0`, `attention` (see `Attention`), `norm_1`, `dense_0`, `dense_1`.

    Attributes:
      heads: as of `Decoder`.
      intermediate: as of `Decoder`.
      gelu: as of `Decoder`.
      epsilon: as of `Decoder`.
      dropout: as of `Decoder`.
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
        attended = attention(
            nn.LayerNorm(self.epsilon, name="norm_0")(x), allowed, train=train
        )
        x = x + drop(attended.out)
        y = nn.LayerNorm(self.epsilon, name="norm_1")(x)
        y = GELUS[self.gelu](dense(self.intermediate, "dense_0")(y))
        return x + drop(dense(x.shape[-1], "dense_1")(y)), attended


class Decoder(nn.Module):
    """Embedded tokens, causal pre-norm blocks, and logits of a class or the next token.

    Each place looks at itself and at those before it. With `task="classify"` the last
    token's vector gives the logits of the text, without bias, as GPT-2's classifiers
    have it. With "next" the embedding of the tokens itself gives logits of the id that
    follows each place; those of the last token are the logits of the text.

    Layers: `tokens` and `positions` (embeddings), `block_0`, ... (see `Block`), `norm`,
    and `logits` with "classify".
    Features: `embed` and, for each block i, `block_i` `[B, L, W]`; `scores_i`,
    `query_i`, `key_i`, `value_i` (see `Attended`); `mask` bool `[B, L]`, True = a
    token; `hidden` `[B, L, W]` after `norm`; `pooled` `[B, W]`, `hidden` at the last
    token; with "next" also `next` `[B, L, vocabulary]`, the logits at each place.

    Attributes:
      classes: number of logits; with "next" it equals `vocabulary`.
      task: "classify" or "next".
      layers: number of blocks.
      width: channels of a token (W); a multiple of `heads`.
      heads: attention heads.
      intermediate: units of a block's hidden dense layer.
      vocabulary: number of ids.
      max_length: tokens of the longest text.
      pad: the id of padding, which is looked at by nobody; -1 for none.
      gelu: "exact", or its approximation "tanh".
      epsilon: of the layer norms.
      dropout: fraction dropped in training: of embeddings, attention weights and
        branches, in [0, 1).
    """

    classes: int
    task: str = "classify"
    layers: int = 2
    width: int = 128
    heads: int = 2
    intermediate: int = 512
    vocabulary: int = 50257
    max_length: int = 1024
    pad: int = 50256
    gelu: str = "tanh"
    epsilon: float = 1e-5
    dropout: float = 0.1

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "layers", "width", "heads", "intermediate")
        checks.counts(self, "vocabulary", "max_length")
        checks.whole(self, "pad", least=-1)
        checks.fractions(self, "dropout", "epsilon")
        checks.heads(self)
        checks.choice(self, "gelu", GELUS)
        checks.choice(self, "task", TASKS)
        if self.task == "next" and self.classes != self.vocabulary:
            raise errors.UserError(
                f"Decoder.classes: expected the vocabulary's {self.vocabulary} with "
                f"task 'next', got {self.classes}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, ids: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of ids `[B, L]`, whole numbers."""
        checks.ids(self, ids)
        mask = ids != self.pad
        length = ids.shape[1]
        tokens = nn.Embed(
            self.vocabulary, self.width, embedding_init=NORMAL, name="tokens"
        )
        positions = nn.Embed(
            self.max_length, self.width, embedding_init=NORMAL, name="positions"
        )
        x = tokens(ids) + positions(jnp.arange(length, dtype=jnp.int32)[None])
        x = Dropout(self.dropout, deterministic=not train)(x)
        features = {"embed": x, "mask": mask}
        allowed = mask[:, None, None] & np.tri(length, dtype=bool)[None, None]
        for i in range(self.layers):
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
        x = features["hidden"] = nn.LayerNorm(self.epsilon, name="norm")(x)
        features["pooled"] = pooled = at_last_token(x, mask)
        if self.task == "next":
            features["next"] = tokens.attend(x)
            return at_last_token(features["next"], mask), features
        logits = nn.Dense(
            self.classes, use_bias=False, kernel_init=NORMAL, name="logits"
        )
        return logits(pooled), features


def at_last_token(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns x `[B, L, W]` at the last place where mask `[B, L]` is True, `[B, W]`.

    It is 0 where no place is.
    """
    places = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
    last = places == jnp.max(jnp.where(mask, places, -1), axis=1, keepdims=True)
    return jnp.sum(x * last[..., None].astype(x.dtype), axis=1)
