"""What is known of a value of a program: the units along its axes, where it is zero."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lib.shrink.units import PINNED, Axis, Units

WHOLE: tuple[None, ...] = ()


class Held(NamedTuple):
    """What is known of a value.

    Attributes:
      axes: the units of each axis; None for an axis of a symbolic length.
      fades: bool arrays as the axes: the value is 0 wherever a position is that is
        removed, when the leaves are 0 there. (Of positions that are pinned it says
        nothing.)
      zero: it is 0 everywhere.
      known: the number that all of its elements are, where the program says so.
      leaf: the path of the leaf that it is, perhaps transposed or converted.
      places: the axis of the leaf that each axis is; None for any other.
    """

    axes: tuple[Axis | None, ...]
    fades: tuple[np.ndarray | None, ...]
    zero: bool = False
    known: Any = None
    leaf: str = ""
    places: tuple[int | None, ...] = WHOLE

    def plain(self) -> "Held":
        """Returns it as a value that is no leaf any more."""
        return self._replace(leaf="", places=WHOLE)


def always(axis: Axis | None, value: bool) -> np.ndarray | None:
    """Returns a fade that is the same at each position of an axis."""
    return None if axis is None else np.full(len(axis), value)


def length(n: Any) -> int | None:
    """Returns the length of an axis; None if it is symbolic."""
    return int(n) if isinstance(n, int | np.integer) else None


def pinned(shape: tuple[Any, ...]) -> Held:
    """Returns a value of which nothing can be removed."""
    axes = tuple(
        None if length(n) is None else np.full(length(n), PINNED) for n in shape
    )
    return Held(axes, tuple(always(axis, True) for axis in axes))


def free(units: Units, shape: tuple[Any, ...], *, fades: bool = False) -> Held:
    """Returns a value whose axes depend on no others; those of length 1 are pinned."""
    axes = []
    for n in shape:
        if length(n) is None:
            axes.append(None)
        else:
            axes.append(np.zeros(1, np.int64) if n == 1 else units.fresh(length(n)))
    return Held(tuple(axes), tuple(always(axis, fades) for axis in axes))


def constant(units: Units, value: Any) -> Held:
    """Returns what is known of a constant of the program."""
    shape = np.shape(value)
    held = free(units, shape)
    try:
        array = np.asarray(value)
        nonzero = np.asarray(array != 0)
    except (TypeError, ValueError):  # a key, or another extended type
        return held
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        return held
    zero = not nonzero.any()
    fades = tuple(
        ~nonzero.any(axis=tuple(a for a in range(array.ndim) if a != axis))
        for axis in range(array.ndim)
    )
    same = array.size and (array == array.flat[0]).all()
    return held._replace(
        fades=fades, zero=bool(zero), known=array.flat[0] if same else None
    )


def settled(x: Held) -> Held:
    """Returns a value of which it is told that nothing fades what is 0 anyway."""
    if not x.zero:
        return x
    return x._replace(fades=tuple(always(axis, True) for axis in x.axes))


def pin(units: Units, held: Held, why: str) -> None:
    """Pins every axis of a value."""
    for axis in held.axes:
        if axis is not None:
            units.pin(axis, why)


def join(units: Units, a: Axis | None, b: Axis | None, why: str) -> None:
    """Joins two axes of one length, position by position; symbolic ones pin."""
    if a is None or b is None:
        for axis in (a, b):
            if axis is not None:
                units.pin(axis, "it is as long as a symbolic axis")
        return
    units.join(a, b, why)
