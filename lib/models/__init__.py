"""Plain Linen models, found by name, and the pure functions made of them.

Every model maps one array, `[B, H, W, C]` of images, `[B, L]` of token ids or `[B, F]`
of numbers, to `(logits, features)`: logits `[B, classes]` and a flat dict of named
intermediate arrays. None knows of compression.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors, tree
from lib.models.cnn import CNN
from lib.models.efficientnet_lite import EfficientNetLite
from lib.models.imagenet_resnet import ImageNetResNet
from lib.models.lenet5 import LeNet5
from lib.models.mlp import MLP
from lib.models.mobilenet_v1 import MobileNetV1
from lib.models.mobilenet_v2 import MobileNetV2
from lib.models.resnet import ResNet
from lib.models.transformer import Transformer
from lib.models.vit import ViT
from lib.models.wide_resnet import WideResNet

MODELS: dict[str, type[nn.Module]] = {
    "cnn": CNN,
    "efficientnet_lite": EfficientNetLite,
    "imagenet_resnet": ImageNetResNet,
    "lenet5": LeNet5,
    "mlp": MLP,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "resnet": ResNet,
    "transformer": Transformer,
    "vit": ViT,
    "wide_resnet": WideResNet,
}

Apply = Callable[..., tuple[tuple[jax.Array, dict[str, jax.Array]], Any]]

# What Linen and the training step set, not a config.
_NOT_FROM_CONFIG = ("parent", "name", "axis_name")


def fields(name: str) -> tuple[str, ...]:
    """Returns the fields that a config may set of the model called `name`."""
    model = errors.lookup(MODELS, name, "model")
    names = (f.name for f in dataclasses.fields(model))
    return tuple(n for n in names if n not in _NOT_FROM_CONFIG)


def build(name: str, *, classes: int, **settings: Any) -> nn.Module:
    """Returns the model called `name` in `MODELS`.

    Args:
      name: a key of `MODELS`.
      classes: number of logits, at least 1.
      **settings: the model's other fields; a list counts as a tuple.

    Raises:
      UserError: an unknown name or field, or a value out of its field's range.
    """
    valid = fields(name)
    for field in settings:
        if field not in valid:
            raise errors.UserError(
                f"unknown field {field!r} of model {name!r}; "
                f"{errors.hint(field, valid)}"
            )
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return MODELS[name](classes=classes, **plain)


def bind_axis(module: nn.Module, axis_name: str | None) -> nn.Module:
    """Returns the model with batch statistics averaged over a pmap axis.

    Params and variables are those of `module`. A model without an `axis_name` field
    has no statistics to average and is returned as it is. The result can be applied
    with `train=True` only where the axis is bound.
    """
    if not any(f.name == "axis_name" for f in dataclasses.fields(module)):
        return module
    return module.clone(axis_name=axis_name)


def init(
    module: nn.Module, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
) -> tuple[tree.Tree, tree.Tree]:
    """Returns fresh `(params, variables)` as nested dicts.

    `variables` holds the other Linen collections: `{}` or `{"batch_stats": ...}`.

    Args:
      module: a model.
      key: JAX PRNG key; may be traced, so that `jax.eval_shape` gives the shapes.
      shape: of one input without the axis of the batch: (height, width, channels) of
        an image, (length,) of token ids, (features,) of a row of numbers.
      dtype: of the input: float32, or int32 of token ids.

    Raises:
      UserError: `shape` is not positive numbers, or does not fit the model.
    """
    shape = tuple(shape)
    if not shape or not all(isinstance(n, int) and n >= 1 for n in shape):
        raise errors.UserError(
            f"shape of an input: expected numbers of at least 1, got {shape}"
        )

    variables = dict(_fresh(module, shape, jnp.dtype(dtype), key))
    params = variables.pop("params")
    return params, variables


# Jitted, so that the forward pass, which Linen's init goes through, is not computed.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fresh(
    module: nn.Module, shape: tuple[int, ...], dtype: Any, key: jax.Array
) -> tree.Tree:
    inputs = jnp.zeros((1, *shape), dtype)
    return module.init({"params": key}, inputs, train=False)


def make_apply(module: nn.Module) -> Apply:
    """Returns the model as a pure function.

    `apply(params, variables, inputs, *, train, key) -> ((logits, features), variables)`
    with inputs `[B, ...]` and logits `[B, classes]`. With `train=True` dropout
    draws from `key` and the returned variables hold the updated batch statistics;
    with `train=False` nothing is random, `key` is not read (pass None), and the
    variables come back as they are.
    """

    def apply(params, variables, inputs, *, train: bool, key: jax.Array | None):
        collections = {"params": params, **variables}
        if not train:
            return module.apply(collections, inputs, train=False), variables
        return module.apply(
            collections,
            inputs,
            train=True,
            rngs=None if key is None else {"dropout": key},
            mutable=list(variables),
        )

    return apply


def check(
    module: nn.Module,
    params: tree.Tree,
    variables: tree.Tree,
    shape: Sequence[int],
    dtype: Any = jnp.float32,
) -> None:
    """Raises a `UserError` unless the weights fit the model and its inputs.

    Computes nothing: only shapes are compared.

    Args:
      module: a model.
      params: nested dict of arrays, such as a checkpoint or an artifact holds.
      variables: the other collections.
      shape: of one input, as for `init`.
      dtype: of the input.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    wanted = jax.eval_shape(lambda k: init(module, k, shape, dtype), key)
    name = type(module).__name__
    size = "x".join(str(n) for n in shape)
    for want, have in zip(wanted, (params, variables), strict=True):
        want, have = _shapes(want), _shapes(have)
        for path, expected in want.items():
            if path not in have:
                raise errors.UserError(
                    f"{name} on inputs of {size}: weights lack {path!r}; "
                    f"{errors.hint(path, have)}"
                )
            if have[path] != expected:
                raise errors.UserError(
                    f"{name} on inputs of {size}: expected {path!r} "
                    f"of shape {expected}, got {have[path]}"
                )
        for path in have:
            if path not in want:
                raise errors.UserError(
                    f"{name} on inputs of {size}: has no {path!r}; "
                    f"{errors.hint(path, want)}"
                )


def _shapes(nested: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(jnp.shape(x)) for path, x in tree.flatten(nested).items()}
