"""Small models of the kinds that a remover of channels meets, each with its inputs."""

import inspect
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib import models, tree
from tests.shrink import sequence_models as seq

KEY = jax.random.key(0)


class Case(NamedTuple):
    """A model with weights that are neither 0 nor 1 by accident.

    Attributes:
      f: `f(weights, x) -> logits` in evaluation mode, pure.
      weights: {"params": nested dict, "variables": {other collection: nested dict}}.
      x: a batch of 2 to 4.
      again: seed -> another batch of the same shape; `x` is `again(0)`.
      train: `train(weights, x, key) -> (logits, new variables)`; None for a model
        that does the same in training.
    """

    f: Callable[..., Any]
    weights: dict[str, Any]
    x: jax.Array
    again: Callable[[int], jax.Array]
    train: Callable[..., Any] | None


def norm(x, train):
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5)(x)


def conv(x, width, size=3, stride=1, **fields):
    """A convolution without bias, with a border on every side."""
    border = ((size // 2, size // 2),) * 2
    fields = {"use_bias": False, "padding": border, **fields}
    return nn.Conv(width, (size, size), (stride, stride), **fields)(x)


def pool(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))


# --- Images


class CNN(nn.Module):
    """A residual around two convolutions with batch norm, the first with bias."""

    @nn.compact
    def __call__(self, x, train=False):
        x = pool(nn.relu(norm(conv(x, 6), train)))
        y = nn.relu(norm(conv(x, 10, use_bias=True), train))
        x = nn.relu(x + norm(conv(y, 6), train))
        x = nn.relu(conv(x, 9, stride=2, use_bias=True))
        x = nn.relu(nn.Dense(11)(x.reshape((len(x), -1))))
        return nn.Dense(5)(x)


class WideResNet(nn.Module):
    """Norm and relu before each convolution; the shortcut projects where it must."""

    @nn.compact
    def __call__(self, x, train=False):
        x = conv(x, 4)
        for width, stride in ((6, 1), (6, 1), (10, 2), (10, 1)):
            y = nn.relu(norm(x, train))
            if width != x.shape[-1]:
                x = conv(y, width, 1, stride)
            y = nn.relu(norm(conv(y, width, stride=stride), train))
            y = nn.Dropout(0.2, deterministic=not train)(y)
            x = x + conv(y, width)
        return nn.Dense(5)(nn.relu(norm(x, train)).mean((1, 2)))


class MobileNetV2(nn.Module):
    """Widened by 1x1, filtered channel by channel, narrowed by 1x1 without relu."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu6(norm(conv(x, 5), train))
        for width, factor, stride in ((4, 1, 1), (6, 3, 2), (6, 2, 1), (8, 2, 2)):
            y, wide = x, factor * x.shape[-1]
            if factor > 1:
                y = nn.relu6(norm(conv(y, wide, 1), train))
            y = conv(y, wide, stride=stride, feature_group_count=wide)
            y = nn.relu6(norm(y, train))
            y = norm(conv(y, width, 1), train)
            x = x + y if x.shape == y.shape else y
        x = nn.relu6(norm(conv(x, 14, 1), train)).mean((1, 2))
        return nn.Dense(5)(nn.Dropout(0.2, deterministic=not train)(x))


class DenseNet(nn.Module):
    """Each layer's channels are put behind all those before it."""

    @nn.compact
    def __call__(self, x, train=False):
        x = conv(x, 6)
        for i, layers in enumerate((3, 2)):
            if i:
                x = conv(nn.relu(norm(x, train)), 9, 1)
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for _ in range(layers):
                y = conv(nn.relu(norm(x, train)), 8, 1)
                y = conv(nn.relu(norm(y, train)), 4)
                x = jnp.concatenate((x, y), axis=-1)
        return nn.Dense(5)(nn.relu(norm(x, train)).mean((1, 2)))


class UNet(nn.Module):
    """Logits of each pixel; one way up is learned, the other repeats pixels."""

    @nn.compact
    def __call__(self, x, train=False):
        high = nn.relu(nn.GroupNorm(num_groups=3)(conv(x, 6)))
        middle = nn.relu(norm(conv(pool(high), 10), train))
        x = nn.relu(conv(pool(middle), 12, use_bias=True))
        x = nn.ConvTranspose(7, (2, 2), strides=(2, 2))(x)
        x = jnp.concatenate((x, middle), axis=-1)
        x = nn.relu(norm(conv(x, 8), train))
        x = jax.image.resize(x, (*high.shape[:3], 8), "nearest")
        x = nn.relu(conv(jnp.concatenate((high, x), axis=-1), 5, use_bias=True))
        return conv(x, 4, 1, use_bias=True)


class SqueezeExcite(nn.Module):
    """Channels times a gate made of their own means."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(norm(conv(x, 6), train))
        y = nn.silu(norm(conv(x, 12), train))
        gate = nn.relu(nn.Dense(5)(y.mean((1, 2), keepdims=True)))
        y = y * nn.sigmoid(nn.Dense(12)(gate))
        x = nn.relu(x + norm(conv(y, 6, 1), train))
        return nn.Dense(5)(x.mean((1, 2)))


# --- Oddities


class Reshaped(nn.Module):
    """Units become places and channels, and places and channels become units."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4 * 2 * 6)(x)).reshape((len(x), 4, 2, 6))
        x = nn.relu(conv(x, 5)).transpose((0, 3, 1, 2))
        x = nn.relu(nn.Dense(3 * 4)(x.reshape((len(x), -1))))
        x = x.reshape((len(x), 3, 2, 2)).transpose((0, 2, 3, 1))  # channels first
        x = nn.relu(conv(x, 7)).swapaxes(1, 3)
        return nn.Dense(5)(x.reshape((len(x), -1)))


class Splits(nn.Module):
    """Gated halves, shuffled channels, every other channel, channels of zeros."""

    @nn.compact
    def __call__(self, x):
        x, gate = jnp.split(conv(x, 12, use_bias=True), 2, axis=-1)
        x = x * nn.sigmoid(gate)
        x = x.reshape((*x.shape[:3], 2, 3)).swapaxes(3, 4).reshape(x.shape)
        x = nn.relu(conv(x, 8, feature_group_count=2))
        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (1, 3)))
        x = nn.relu(x + conv(x, 12, use_bias=True))[..., ::2]
        return nn.Dense(5)(x.mean((1, 2)))


class Shared(nn.Module):
    """A layer called twice, and a matrix used both ways."""

    @nn.compact
    def __call__(self, x):
        twice = nn.Dense(8)
        x = nn.relu(nn.Dense(8)(x))
        x = nn.relu(twice(nn.relu(twice(x))))
        w = self.param("kernel", nn.initializers.lecun_normal(), (8, 11))
        return nn.Dense(5)(nn.tanh(nn.relu(x @ w) @ w.T))


class WeightNorm(nn.Module):
    """Each unit's weights are divided by their norm over the inputs."""

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate((12, 9)):
            shape = (x.shape[-1], width)
            w = self.param(f"kernel_{i}", nn.initializers.lecun_normal(), shape)
            scale = self.param(f"scale_{i}", nn.initializers.ones, (width,))
            w = w * (scale / jnp.sqrt(jnp.sum(w**2, axis=0)))[None]
            x = nn.relu(x @ w)
        return nn.Dense(5)(x)


class LayerScale(nn.Module):
    """Each branch times a learned vector before it is added (arXiv 2103.17239)."""

    @nn.compact
    def __call__(self, x):
        x = conv(x, 6, 2, 2, padding="VALID", use_bias=True)
        for i, width in enumerate((14, 11)):
            y = conv(x, 6, 3, use_bias=True, feature_group_count=6)
            y = nn.gelu(nn.Dense(width)(nn.LayerNorm()(y)))
            y = nn.Dense(6)(y)
            scale = self.param(f"scale_{i}", nn.initializers.constant(1e-6), (6,))
            x = x + y * scale[None, None, None]
        return nn.Dense(5)(nn.LayerNorm()(x.mean((1, 2))))


# --- Networks of the literature, in their own sizes


def resnet20_cifar() -> nn.Module:
    """Returns lib's ResNet-20; as all of lib's, it returns logits and features."""
    return models.build("resnet", classes=10, depth=20)


def resnet56_cifar() -> nn.Module:
    """Returns lib's ResNet-56; as all of lib's, it returns logits and features."""
    return models.build("resnet", classes=10, depth=56)


def mnist_mlp(*widths: int) -> nn.Module:
    """Returns lib's perceptron of ten classes with hidden layers of these widths."""
    return models.build("mlp", classes=10, widths=widths)


# --- Cases


def floats(*shape):
    """Returns seed -> normal inputs of a shape."""

    def again(seed):
        x = np.random.default_rng(seed).standard_normal(shape)
        return jnp.asarray(x, jnp.float32)

    return again


def tokens(seed):
    """Returns `[4, 7]` tokens: a 1 in the middle, and 0s behind all but one text."""
    x = np.random.default_rng(seed).integers(2, seq.VOCABULARY, (4, 7))
    x[:, 3] = 1
    for i in range(4):
        x[i, 7 - i :] = 0
    return jnp.asarray(x, jnp.int32)


_IMAGES = floats(3, 8, 8, 3)
_ROWS = floats(4, 6)
_BOTTLENECKS = {"classes": 5, "depth": 14, "widths": (4, 6, 4, 6), "stem_width": 5}
_RESNEXT = _BOTTLENECKS | {
    "widths": (8, 12, 8, 12),
    "expansion": 2,
    "groups": 2,
    "stem": "small",
}

# name -> (module, seed -> inputs)
_MODELS = {
    "mlp": (models.build("mlp", classes=5, widths=(12, 9)), floats(4, 4, 3, 1)),
    "mlp_norm": (
        models.build("mlp", classes=5, widths=(12, 9), norm=True, dropout=0.2),
        floats(4, 4, 3, 1),
    ),
    "lenet5": (
        models.build("lenet5", classes=5, widths=(6, 10, 14)),
        floats(2, 20, 20, 1),
    ),
    "cnn": (CNN(), _IMAGES),
    "resnet20": (models.build("resnet", classes=5, widths=(4, 8, 16)), _IMAGES),
    "wide_resnet": (WideResNet(), _IMAGES),
    "bottleneck": (
        models.build("imagenet_resnet", **_BOTTLENECKS),
        floats(2, 16, 16, 3),
    ),
    "resnext": (models.build("imagenet_resnet", **_RESNEXT), _IMAGES),
    "mobilenet_v2": (MobileNetV2(), _IMAGES),
    "densenet": (DenseNet(), _IMAGES),
    "unet": (UNet(), _IMAGES),
    "squeeze_excite": (SqueezeExcite(), _IMAGES),
    "layer_scale": (LayerScale(), _IMAGES),
    "vit": (seq.ViT(), _IMAGES),
    "fused_qkv": (seq.ViT(fused=True), _IMAGES),
    "bert": (seq.Bert(), tokens),
    "bert_slow_norm": (seq.Bert(fast=False), tokens),
    "lstm": (seq.Recurrent(nn.LSTMCell), floats(4, 5, 4)),
    "lstm_optimized": (seq.Recurrent(nn.OptimizedLSTMCell), floats(4, 5, 4)),
    "tied": (seq.Tied(), tokens),
    "scan": (seq.Stack(), _ROWS),
    "scan_remat": (seq.Stack(remat=True), _ROWS),
    "reshaped": (Reshaped(), _ROWS),
    "splits": (Splits(), _IMAGES),
    "shared": (Shared(), _ROWS),
    "weight_norm": (WeightNorm(), _ROWS),
    "glu": (seq.GLU(fused=True), _ROWS),
    "swiglu": (seq.GLU(fused=False), _ROWS),
}
NAMES = tuple(_MODELS)


def make(name: str) -> Case:
    """Returns the case of a name."""
    return case(*_MODELS[name])


def case(module: nn.Module, again: Callable[[int], jax.Array]) -> Case:
    """Returns the case of a module that returns logits or (logits, features)."""
    x = again(0)
    trains = "train" in inspect.signature(module.__call__).parameters
    fixed = {"train": False} if trains else {}

    def logits(out):
        return out[0] if isinstance(out, tuple) else out

    def f(weights, x):
        collections = {"params": weights["params"], **weights["variables"]}
        return logits(module.apply(collections, x, **fixed))

    def train(weights, x, key):
        collections = {"params": weights["params"], **weights["variables"]}
        out, variables = module.apply(
            collections,
            x,
            train=True,
            rngs={"dropout": key},
            mutable=list(weights["variables"]),
        )
        return logits(out), dict(variables)

    shapes = jax.eval_shape(lambda key, x: module.init(key, x, **fixed), KEY, x)
    variables = _generic(shapes)
    params = variables.pop("params")
    weights = {"params": params, "variables": variables}
    return Case(f, weights, x, again, train if trains else None)


def _generic(shapes):
    """Returns leaves of these shapes, none of which is 0 or 1 by accident."""

    def leaf(path, x):
        random = np.random.default_rng(zlib.crc32(path.encode()))
        kind = path.split("/")[-1].split("_")[0]
        if kind in ("scale", "var"):
            return jnp.asarray(random.uniform(0.5, 1.5, x.shape), x.dtype)
        if kind in ("bias", "mean", "cls", "positions", "embedding"):
            return jnp.asarray(0.3 * random.standard_normal(x.shape), x.dtype)
        size = np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(random.standard_normal(x.shape) / size, x.dtype)

    return tree.unflatten({k: leaf(k, x) for k, x in tree.flatten(shapes).items()})
