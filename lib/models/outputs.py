"""What a model may take and return, so that any Linen module can be one."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def mode(module: nn.Module, train: bool) -> dict[str, bool]:
    """Returns the argument `train` of a module, nothing for one that takes none.

    Raises:
      UserError: it is not called with one array, or needs an argument besides.
    """
    taken = inspect.signature(type(module).__call__).parameters.values()
    needed = [p.name for p in taken if p.default is p.empty and p.kind not in _REST]
    if [name for name in needed if name != "train"][2:] or len(taken) < 2:
        raise errors.UserError(
            f"{type(module).__name__}.__call__: expected arguments (self, x) and, if "
            f"any, train, got ({', '.join(needed)})"
        )
    takes = any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in taken)
    return {"train": train} if takes else {}


def standard(module: nn.Module, out: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (logits, features) of what a module returned; plain logits have none.

    Raises:
      UserError: it is neither, or the logits are not floats `[batch, classes]`.
    """
    name = type(module).__name__
    logits, features = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
    flat = isinstance(features, Mapping) and all(map(_is_array, features.values()))
    if not (flat and _is_array(logits)):
        raise errors.UserError(
            f"{name}: expected it to return logits, or (logits, features) with a flat "
            f"dict of arrays, got {_told(out)}"
        )
    wanted = (logits.shape[0], module.classes) if logits.ndim else ()
    if logits.shape != wanted or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise errors.UserError(
            f"{name}: expected logits of floats [batch, {module.classes}], got "
            f"{logits.dtype} {list(logits.shape)}"
        )
    return logits, dict(features)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _told(out: Any) -> str:
    if isinstance(out, tuple):
        return f"({', '.join(map(_told, out))})"
    return f"an array {list(out.shape)}" if _is_array(out) else type(out).__name__
