"""Small models of the kinds that quantizers stumble over, each with its inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


class Case(NamedTuple):
    """A model with weights.

    Attributes:
      f: `f(params, x)`, pure.
      params: nested dict of its weights.
      x: a batch; inputs of the same shape can be drawn by `again`.
      weights: pattern of the leaves that meet contractions.
      again: seed -> another batch.
    """

    f: Callable[..., Any]
    params: Any
    x: jax.Array
    weights: str
    again: Callable[[int], jax.Array]


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.gelu(nn.Dense(8)(x)))


class Bare(nn.Module):
    """A product that no layer knows of."""

    @nn.compact
    def __call__(self, x):
        w = self.param("kernel", nn.initializers.lecun_normal(), (8, 8))
        return jnp.tanh(x @ w) @ w


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.silu(nn.Dense(8, name="fc")(x)), None


def stacked(layer):
    """Returns three layers in a scan, their weights along a leading axis."""

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            return scan(name="layers")(x, None)[0]

    return Scanned()


class Heads(nn.Module):
    """One dense layer for each of two halves, by `nn.vmap`."""

    @nn.compact
    def __call__(self, x):
        both = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=1,
            out_axes=1,
        )
        return both(4, name="half")(x.reshape(len(x), 2, -1))


class Tied(nn.Module):
    """Tokens embedded and read out by one matrix."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(16, 8, name="embed")
        return embed.attend(nn.tanh(nn.Dense(8)(embed(tokens))))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return x + y


class Depthwise(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8, strides=2)(x))
        return nn.Dense(4)(nn.Conv(8, (1, 1))(x).mean((1, 2)))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(4))(x)


def _floats(*shape):
    return lambda seed: jax.random.normal(jax.random.fold_in(KEY, seed), shape)


def _tokens(seed):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 16, (4, 5)), jnp.int32)


# name -> (module, seed -> inputs, pattern of its weights)
KERNEL = r"(^|/)kernel$"
_MODELS = {
    "dense": (Dense(), _floats(16, 8), KERNEL),
    "bare product": (Bare(), _floats(16, 8), KERNEL),
    "scan": (stacked(Layer), _floats(16, 8), KERNEL),
    "scan of remat": (stacked(nn.remat(Layer)), _floats(16, 8), KERNEL),
    "vmap": (Heads(), _floats(16, 8), KERNEL),
    "tied embedding": (Tied(), _tokens, r"(kernel|embedding)$"),
    "attention": (Attention(), _floats(2, 6, 8), KERNEL),
    "depthwise": (Depthwise(), _floats(4, 8, 8, 3), KERNEL),
    "LSTM": (Recurrent(), _floats(4, 5, 6), KERNEL),
}
NAMES = tuple(_MODELS)


def make(name: str) -> Case:
    """Returns the case of a name."""
    module, again, weights = _MODELS[name]
    x = again(0)
    params = jax.jit(module.init)(KEY, x)["params"]
    return Case(
        lambda params, x: module.apply({"params": params}, x), params, x, weights, again
    )
