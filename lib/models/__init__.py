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
from lib.models import factory as factories
from lib.models import outputs
from lib.models.cnn import CNN
from lib.models.decoder import Decoder
from lib.models.efficientnet_lite import EfficientNetLite
from lib.models.encoder import Encoder
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
    "decoder": Decoder,
    "encoder": Encoder,
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
    return _fields(errors.lookup(MODELS, name, "model"))


def _fields(model: type[nn.Module]) -> tuple[str, ...]:
    names = (f.name for f in dataclasses.fields(model) if f.init)
    return tuple(n for n in names if n not in _NOT_FROM_CONFIG)


def build(
    name: str = "", *, factory: str = "", classes: int, **settings: Any
) -> nn.Module:
    """Returns the model called `name` in `MODELS`, or one of the user's own.

    Args:
      name: a key of `MODELS`; "" with a factory.
      factory: `my_package.my_module:MyModel`, a Linen module on `sys.path` or in the
        current folder, with a field `classes`. It is called with a batch, and with
        `train` if it takes that, and returns logits `[B, classes]` or
        (logits, features). "" for a model of `MODELS`.
      classes: number of logits, at least 1.
      **settings: the model's other fields; a list counts as a tuple.

    Raises:
      UserError: an unknown name or field, a value out of its field's range, or no such
        factory.
    """
    if bool(name) == bool(factory):
        raise errors.UserError(
            "a model has a name, or a factory 'my_package.my_module:MyModel', got "
            f"name {name!r} and factory {factory!r}"
        )
    called = name or factory
    if factory:
        model = factories.load(factory)
    else:
        model = errors.lookup(MODELS, name, "model")
    valid = _fields(model)
    for field in ("classes", *settings):
        if field not in valid:
            raise errors.UserError(
                f"unknown field {field!r} of model {called!r}; "
                f"{errors.hint(field, valid)}"
            )
    for field in dataclasses.fields(model):
        given = {"classes", *settings, *_NOT_FROM_CONFIG}
        if field.name not in given and _is_required(field):
            raise errors.UserError(f"model {called!r} needs its field {field.name!r}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return model(classes=classes, **plain)


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


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
    made = dict(module.init({"params": key}, inputs, **outputs.mode(module, False)))
    made.pop("intermediates", None)  # what a module sows is no state
    return made


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
        mode = outputs.mode(module, train)
        if not train:
            out = module.apply(collections, inputs, **mode)
            return outputs.standard(module, out), variables
        out, variables = module.apply(
            collections,
            inputs,
            **mode,
            rngs=None if key is None else {"dropout": key},
            mutable=list(variables),
        )
        return outputs.standard(module, out), variables

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
