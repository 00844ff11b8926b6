"""Small models of sequences, of attention and of stacked layers."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

VOCABULARY = 16


def attend(q, k, v, mask=None):
    """Attention of `[B, T, heads, size]`, heads joined in the result."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, -1e9)
    y = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v)
    return y.reshape((*y.shape[:2], -1))


class ViT(nn.Module):
    """Patches and a class token through pre-norm layers.

    Attributes:
      fused: one Dense makes queries, keys and values, where else it is Linen's own
        attention.
    """

    fused: bool = False
    width: int = 12
    heads: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        width = self.width
        x = nn.Conv(width, (4, 4), strides=(4, 4), padding="VALID")(x)
        x = x.reshape((len(x), -1, width))
        token = self.param("cls", nn.initializers.zeros, (1, 1, width))
        token = jnp.broadcast_to(token, (len(x), 1, width))
        x = jnp.concatenate((token, x), axis=1)
        shape = (1, *x.shape[1:])
        x = x + self.param("positions", nn.initializers.normal(0.02), shape)
        for _ in range(2):
            y = nn.LayerNorm()(x)
            y = self.attention(y)
            x = x + nn.Dropout(0.1, deterministic=not train)(y)
            y = nn.Dense(width)(nn.gelu(nn.Dense(14)(nn.LayerNorm()(x))))
            x = x + nn.Dropout(0.1, deterministic=not train)(y)
        return nn.Dense(5)(nn.LayerNorm()(x)[:, 0])

    def attention(self, x):
        if not self.fused:
            return nn.MultiHeadDotProductAttention(num_heads=self.heads)(x)
        x = nn.Dense(3 * self.width)(x)
        x = x.reshape((*x.shape[:2], 3, self.heads, -1))
        q, k, v = (part.squeeze(2) for part in jnp.split(x, 3, axis=2))
        return nn.Dense(self.width)(attend(q, k, v))


class Bert(nn.Module):
    """Post-norm layers; token 0 is padding, and what follows the first 1 is type 1.

    Attributes:
      fast: the variance is E[x^2] - E[x]^2, not that of the differences.
    """

    fast: bool = True

    @nn.compact
    def __call__(self, tokens, train=False):
        def normed(x):
            return nn.LayerNorm(epsilon=1e-12, use_fast_variance=self.fast)(x)

        def dropped(x):
            return nn.Dropout(0.1, deterministic=not train)(x)

        def heads(x):
            return x.reshape((*x.shape[:2], 2, -1))

        types = (jnp.cumsum(tokens == 1, axis=1) > 0).astype(jnp.int32)
        places = jnp.arange(tokens.shape[1])[None]
        x = nn.Embed(VOCABULARY, 10, name="tokens")(tokens)
        x = x + nn.Embed(8, 10, name="places")(places)
        x = x + nn.Embed(2, 10, name="types")(types)
        x = dropped(normed(x))
        for i in range(2):
            q, k, v = (heads(nn.Dense(10, name=f"{n}_{i}")(x)) for n in "qkv")
            y = nn.Dense(10, name=f"out_{i}")(attend(q, k, v, tokens != 0))
            x = normed(x + dropped(y))
            y = nn.gelu(nn.Dense(14, name=f"up_{i}")(x), approximate=False)
            x = normed(x + dropped(nn.Dense(10, name=f"down_{i}")(y)))
        x = jnp.tanh(nn.Dense(9, name="pooler")(x[:, 0]))
        return nn.Dense(5, name="logits")(x)


# --- Sequences and stacks


class Recurrent(nn.Module):
    """Two recurrent layers; the last one's last output is read.

    Attributes:
      cell: of the layers.
    """

    cell: type[nn.Module]

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(self.cell(7))(nn.Dense(6)(x))
        return nn.Dense(5)(nn.RNN(self.cell(9))(x)[:, -1])


class Tied(nn.Module):
    """Tokens embedded and read out by one matrix."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(VOCABULARY, 8)
        x = embed(tokens)
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(11)(nn.LayerNorm()(x))))
        return embed.attend(nn.tanh(x))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(8)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x)))), None


class Stack(nn.Module):
    """Three layers in a scan, their weights along a leading axis.

    Attributes:
      remat: layers are computed anew in the backward pass.
    """

    remat: bool = False

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(Layer) if self.remat else Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        return nn.Dense(5)(layers(name="layers")(nn.Dense(8)(x), None)[0])


class GLU(nn.Module):
    """Residual layers gated by half of one Dense or by another (arXiv 2002.05202).

    Attributes:
      fused: values and gates are the halves of one Dense, split by slices.
    """

    fused: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        for width in (12, 10):
            y = nn.RMSNorm()(x)
            if self.fused:
                y = nn.Dense(2 * width, use_bias=False)(y)
                y = y[..., :width] * nn.gelu(y[..., width:])
            else:
                gate = nn.silu(nn.Dense(width, use_bias=False)(y))
                y = gate * nn.Dense(width, use_bias=False)(y)
            x = x + nn.Dense(8, use_bias=False)(y)
        return nn.Dense(5)(nn.RMSNorm()(x))
