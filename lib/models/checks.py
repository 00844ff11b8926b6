"""What the fields and the inputs of a model may be, told as one-line user errors."""

import math
import numbers as kinds
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors


def _fail(module: nn.Module, field: str, expected: str) -> None:
    raise errors.UserError(
        f"{type(module).__name__}.{field}: expected {expected}, "
        f"got {getattr(module, field)!r}"
    )


def _is_count(value: Any) -> bool:
    whole = isinstance(value, kinds.Integral) and not isinstance(value, bool)
    return whole and value >= 1


def _is_fraction(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer):  # who traces it has looked at its numbers
        return True
    number = isinstance(value, kinds.Real) and not isinstance(value, bool)
    return number and 0 <= value < 1


def counts(module: nn.Module, *fields: str) -> None:
    """Raises a `UserError` unless each field is a whole number of at least 1."""
    for field in fields:
        if not _is_count(getattr(module, field)):
            _fail(module, field, "a whole number of at least 1")


def fractions(module: nn.Module, *fields: str) -> None:
    """Raises a `UserError` unless each field is a number in [0, 1)."""
    for field in fields:
        if not _is_fraction(getattr(module, field)):
            _fail(module, field, "a number in [0, 1)")


def multipliers(module: nn.Module, *fields: str) -> None:
    """Raises a `UserError` unless each field is a finite number above 0."""
    for field in fields:
        value = getattr(module, field)
        number = isinstance(value, kinds.Real) and not isinstance(value, bool)
        if not (number and 0 < value < math.inf):
            _fail(module, field, "a number above 0")


def whole(module: nn.Module, *fields: str, least: int) -> None:
    """Raises a `UserError` unless each field is a whole number of at least `least`."""
    for field in fields:
        value = getattr(module, field)
        integer = isinstance(value, kinds.Integral) and not isinstance(value, bool)
        if not integer or value < least:
            _fail(module, field, f"a whole number of at least {least}")


def choice(module: nn.Module, field: str, valid: Collection[Any]) -> None:
    """Raises a `UserError` unless the field is one of `valid`."""
    if getattr(module, field) not in valid:
        _fail(module, field, f"one of {', '.join(map(repr, valid))}")


def heads(module: nn.Module) -> None:
    """Raises a `UserError` unless `width` is a multiple of `heads`."""
    if module.width % module.heads:
        _fail(module, "width", f"a multiple of the {module.heads} heads")


def flags(module: nn.Module, *fields: str) -> None:
    """Raises a `UserError` unless each field is True or False."""
    for field in fields:
        if not isinstance(getattr(module, field), bool):
            _fail(module, field, "True or False")


def widths(module: nn.Module, *, least: int, most: float = math.inf) -> None:
    """Raises a `UserError` unless `widths` is a tuple of `least` to `most` counts."""
    value = module.widths
    right = isinstance(value, tuple) and least <= len(value) <= most
    if not (right and all(_is_count(v) for v in value)):
        number = f"{least}" if least == most else f"{least} or more"
        _fail(module, "widths", f"a tuple of {number} whole numbers of at least 1")


def rows_or_images(module: nn.Module, batch: jax.Array) -> None:
    """Raises a `UserError` unless `batch` is rows [B, F] or images [B, H, W, C]."""
    if batch.ndim not in (2, 4):
        raise errors.UserError(
            f"{type(module).__name__}: expected rows of numbers [batch, features] or "
            f"images [batch, height, width, channels], got {batch.ndim} axes: "
            f"{batch.shape}"
        )


def images(module: nn.Module, batch: jax.Array, *, least: int) -> None:
    """Raises a `UserError` unless `batch` is [B, H, W, C], H and W >= `least`."""
    name = type(module).__name__
    if batch.ndim != 4:
        raise errors.UserError(
            f"{name}: expected images of shape [batch, height, width, channels], "
            f"got {batch.ndim} axes: {batch.shape}"
        )
    height, width = batch.shape[1:3]
    if min(height, width) < least:
        raise errors.UserError(
            f"{name}: images of {height}x{width} are too small; "
            f"expected at least {least}x{least}"
        )


def patches(module: nn.Module, batch: jax.Array) -> None:
    """Raises a `UserError` unless images divide into squares of side `patch`."""
    height, width = batch.shape[1:3]
    if height % module.patch or width % module.patch:
        raise errors.UserError(
            f"{type(module).__name__}: images of {height}x{width} do not divide into "
            f"patches of {module.patch}x{module.patch}"
        )


def ids(module: nn.Module, batch: jax.Array) -> None:
    """Raises a `UserError` unless `batch` is whole numbers `[B, L]`, L in range."""
    name = type(module).__name__
    if batch.ndim != 2 or not jnp.issubdtype(batch.dtype, jnp.integer):
        raise errors.UserError(
            f"{name}: expected ids of tokens, whole numbers of shape [batch, length], "
            f"got {batch.dtype} of shape {batch.shape}"
        )
    if not 1 <= batch.shape[1] <= module.max_length:
        raise errors.UserError(
            f"{name}.max_length: expected at least the {batch.shape[1]} tokens of a "
            f"text, got {module.max_length}"
        )
