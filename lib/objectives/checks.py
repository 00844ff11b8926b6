"""Settings of a term: numbers in a range, which a sweep may also trace."""

import math
import numbers
from typing import Any

import jax
import numpy as np

from lib import errors


def number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raises a `UserError` unless `value` is a finite number in the range.

    Arrays pass unread: a traced value cannot be looked at, and a concrete one may be
    a whole sweep's.

    Args:
      name: of the setting, for the message ("distill.temperature").
      value: what a config gave.
      low: lower end of the range.
      high: upper end of the range.
      low_open: whether `low` itself is out of range.
      high_open: whether `high` itself is out of range; infinity always is.
    """
    if isinstance(value, jax.Array | np.ndarray):
        return
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    inside = real and (
        (value > low if low_open else value >= low)
        and (value < high if high_open or math.isinf(high) else value <= high)
    )
    if not inside:
        left = "(" if low_open else "["
        right = ")" if high_open or math.isinf(high) else "]"
        raise errors.UserError(
            f"{name}: expected a number in {left}{low:g}, {high:g}{right}, "
            f"got {value!r}"
        )
