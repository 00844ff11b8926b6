"""Weights that were trained elsewhere, as a model's own params and variables.

Each model that others have published weights for has a layout: which of their names
stands for which of ours. Every weight of the model has to be there, of the right shape,
and nothing may be left over: half a network is no network.
"""

import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from lib import errors, models, tree
from lib.models import torch_file
from lib.models.resnet import ResNet


class Match(NamedTuple):
    """How the names of a file fit a model.

    Attributes:
      names: {path of ours: name of theirs}, for each weight that was found.
      ours: paths of the model that the file has nothing for.
      theirs: names of the file that the model has no use for.
    """

    names: dict[str, str]
    ours: list[str]
    theirs: list[str]


def load(
    path: str | pathlib.Path,
    module: nn.Module,
    shape: Sequence[int],
    dtype: Any = np.float32,
) -> tuple[tree.Tree, tree.Tree]:
    """Returns `(params, variables)` of a model, from a file of another library.

    Kernels come in our order of axes: convolutions `[out, in, h, w]` become
    `[h, w, in, out]`, dense ones `[out, in]` become `[in, out]`.

    Args:
      path: `.th`, `.pt` or `.pth` of PyTorch (read without it, tensors only), or an
        `.npz` with the same names.
      module: a model whose class is in `LAYOUTS`.
      shape: of one input, as for `models.init`.
      dtype: of the input.

    Raises:
      UserError: the file is missing, damaged or of another kind; there is no layout for
        the model; a weight is missing, left over or of another shape.
    """
    path = pathlib.Path(path).expanduser()
    found = read(path)
    wanted = _wanted(module, shape, dtype)
    fit = match(found, module, shape, dtype)
    if fit.ours or fit.theirs:
        raise errors.UserError(
            f"{path} does not fit {type(module).__name__}: {len(fit.names)} of "
            f"{len(wanted)} weights are there, it lacks {_few(fit.ours)}, and "
            f"{_few(fit.theirs)} of it would be left over"
        )
    flat = {}
    for ours, theirs in fit.names.items():
        value = found[theirs]
        value = value.transpose(_ORDER.get(value.ndim, range(value.ndim)))
        if value.shape != wanted[ours].shape:
            raise errors.UserError(
                f"{path}: expected {theirs!r} to give {ours!r} of shape "
                f"{wanted[ours].shape}, got {value.shape}"
            )
        flat[ours] = np.ascontiguousarray(value, wanted[ours].dtype)
    variables = dict(tree.unflatten(flat))
    return variables.pop("params"), variables


def match(
    names: Sequence[str] | Mapping[str, Any],
    module: nn.Module,
    shape: Sequence[int],
    dtype: Any = np.float32,
) -> Match:
    """Returns which of a file's names stand for which weights of a model.

    Args:
      names: of the file; a leading "module.", which PyTorch's DataParallel puts there,
        and counters of batches do not count.
      module: a model whose class is in `LAYOUTS`.
      shape: of one input, as for `models.init`.
      dtype: of the input.

    Raises:
      UserError: there is no layout for the model.
    """
    layout = errors.lookup(LAYOUTS, type(module).__name__, "layout of foreign weights")
    there = {n.removeprefix("module."): n for n in names if not n.endswith(_COUNTER)}
    asked = {path: layout(path) for path in _wanted(module, shape, dtype)}
    return Match(
        {path: there[name] for path, name in asked.items() if name in there},
        [path for path, name in asked.items() if name not in there],
        [there[name] for name in there if name not in asked.values()],
    )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by their names there.

    Raises:
      UserError: the file is missing, damaged or of another kind.
    """
    return errors.lookup(READERS, path.suffix, "kind of weights file")(path)


def _npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        whole = io.BytesIO(path.read_bytes())  # NumPy leaves a damaged file open
        with np.load(whole, allow_pickle=False) as found:
            return dict(found)
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except Exception as e:  # whatever a damaged archive makes NumPy raise
        raise errors.UserError(f"{path} is no archive of arrays: {e}") from e


_COUNTER = "num_batches_tracked"
# Number of axes -> the order in which theirs become ours.
_ORDER = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}

_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def _resnet(path: str) -> str:
    """Returns the name in PyTorch's ResNets for CIFAR (akamaster's, after torchvision).

    `params/block_0_2/conv_1/kernel` is `layer1.2.conv2.weight`.
    """
    _, *scopes, layer, leaf = path.split("/")
    kind, _, number = layer.partition("_")
    if kind == "logits":
        return f"linear.{'weight' if leaf == 'kernel' else 'bias'}"
    named = {"conv": "conv", "norm": "bn"}[kind] + str(int(number or 0) + 1)
    prefix = ""
    for scope in scopes:
        _, stage, block = scope.split("_")
        prefix = f"layer{int(stage) + 1}.{block}."
    return f"{prefix}{named}.{'weight' if kind == 'conv' else _NORM[leaf]}"


# Class of a model -> (collection/path of ours -> name of theirs).
LAYOUTS: dict[str, Callable[[str], str]] = {ResNet.__name__: _resnet}

READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    ".npz": _npz,
    ".pt": torch_file.read,
    ".pth": torch_file.read,
    ".th": torch_file.read,
}


def _wanted(module: nn.Module, shape: Sequence[int], dtype: Any) -> dict[str, Any]:
    """Returns shapes and dtypes of a model's weights, `{collection/path: ...}`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    fresh = functools.partial(models.init, module, shape=shape, dtype=dtype)
    params, variables = jax.eval_shape(fresh, key)
    return tree.flatten({"params": params, **variables})


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
