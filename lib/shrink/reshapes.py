"""Reshapes: axes that are merged and split take their units apart and together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import Units


def rule(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    """Returns what is known of the output of a reshape."""
    x, shape = ins[0], eqn.params["new_sizes"]
    if eqn.params["dimensions"] is not None:
        holds.pin(units, x, "it is reshaped in another order")
        return [holds.pinned(shape)]
    old = eqn.invars[0].aval.shape
    axes: list[Any] = []
    fades: list[Any] = []
    places: list[int | None] = []
    for these, those in _segments(old, shape):
        if len(these) == 1 and len(those) == 1:
            axes.append(x.axes[these[0]])
            fades.append(x.fades[these[0]])
            places.append(x.places[these[0]] if x.places else None)
            continue
        sizes = [shape[i] for i in those]
        some = [(x.axes[i], x.fades[i]) for i in these]
        if any(a is None for a, _ in some) or any(
            holds.length(n) is None for n in sizes
        ):
            for a, _ in some:
                if a is not None:
                    units.pin(a, "it is reshaped along with a symbolic axis")
            part = holds.pinned(tuple(sizes))
            new, fade = list(part.axes), list(part.fades)
        else:
            new, fade = _parted(units, *_merged(units, some), sizes)
        axes += new
        fades += fade
        places += [None] * len(new)
    made = Held(tuple(axes), tuple(fades), x.zero, x.known)
    return [made._replace(leaf=x.leaf, places=tuple(places)) if x.leaf else made]


def _segments(old: Sequence[Any], new: Sequence[Any]):
    """Returns the least runs of axes, before and after, of as many elements each."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        these, those = [], []
        while True:
            a = math.prod(old[k] for k in these)
            b = math.prod(new[k] for k in those)
            if these and those and _same(a, b):
                break
            if i >= len(old) and j >= len(new):
                break
            if j >= len(new) or (i < len(old) and (not these or _less(a, b))):
                these.append(i)
                i += 1
            else:
                those.append(j)
                j += 1
        # Axes of length 1 that follow belong to no other run.
        found.append((these, those))
    return _tidied(found, old, new)


def _tidied(found: list, old: Sequence[Any], new: Sequence[Any]) -> list:
    """Returns the runs with each pair of equal axes in a run of its own, if alone.

    Axes of length 1 beside it are runs of their own: those that vanish, `([i], [])`,
    and those that appear, `([], [j])`.
    """
    tidy = []
    for these, those in found:
        long = [i for i in these if not _same(old[i], 1)]
        wide = [j for j in those if not _same(new[j], 1)]
        if len(long) == 1 and len(wide) == 1:
            for j in those:
                tidy.append((long, [j]) if j == wide[0] else ([], [j]))
        else:
            tidy.append((these, those))
    return tidy


def _same(a: Any, b: Any) -> bool:
    return bool(a == b)


def _less(a: Any, b: Any) -> bool:
    try:
        return bool(a < b)
    except Exception:  # JAX cannot tell for symbolic lengths
        return False


def _merged(units: Units, some: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the units and the fades of axes merged into one, row by row."""
    axis, fade = np.zeros(1, np.int64), np.ones(1, bool)
    for inner, beside in some:
        first = fade | units.is_pinned(axis)
        second = beside | units.is_pinned(inner)
        axis = units.product(axis, inner)
        fade = (first[:, None] & second[None, :]).ravel()
    return axis, fade


def _parted(
    units: Units, axis: np.ndarray, fade: np.ndarray, sizes: Sequence[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the units and the fades of the axes that one axis is cut up into."""
    axes, fades = [], []
    rest = len(axis)
    for n in sizes[:-1]:
        rest //= n
        first, axis = units.split(axis, n, rest)
        rows = fade.reshape(n, rest)
        axes.append(first)
        fades.append(rows.all(1))
        fade = rows.all(0)
    if sizes:
        axes.append(axis)
        fades.append(fade)
    return axes, fades
