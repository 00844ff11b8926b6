"""Equations that move elements: the units of their axes move along."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend import core

from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import PINNED, Units

Rule = Callable[[Units, core.JaxprEqn, Sequence[Held]], list[Held]]


def _broadcast(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, shape = ins[0], eqn.params["shape"]
    spread = holds.free(units, shape)
    axes, fades = list(spread.axes), [holds.always(a, x.zero) for a in spread.axes]
    places: list[int | None] = [None] * len(shape)
    for old, new in enumerate(eqn.params["broadcast_dimensions"]):
        before = x.axes[old]
        if before is None or len(before) == holds.length(shape[new]):
            axes[new], fades[new] = before, x.fades[old]
            places[new] = x.places[old] if x.places else None
    made = Held(tuple(axes), tuple(fades), x.zero, x.known)
    return [made._replace(leaf=x.leaf, places=tuple(places)) if x.leaf else made]


def _transpose(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    return [_taken(ins[0], eqn.params["permutation"])]


def _squeeze(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    gone = {d % len(ins[0].axes) for d in eqn.params["dimensions"]}
    return [_taken(ins[0], [i for i in range(len(ins[0].axes)) if i not in gone])]


def _taken(x: Held, order: Sequence[int]) -> Held:
    """Returns a value with only these of its axes, in this order."""
    axes, fades = (tuple(part[i] for i in order) for part in (x.axes, x.fades))
    places = tuple(x.places[i] for i in order) if x.places else ()
    return x._replace(axes=axes, fades=fades, places=places)


def _reverse(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    gone = eqn.params["dimensions"]
    return [_each(ins[0], lambda a, place: a[::-1] if place in gone else a)]


def _slice(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    p = eqn.params
    steps = p["strides"] or [1] * len(p["start_indices"])
    ends = list(zip(p["start_indices"], p["limit_indices"], steps, strict=True))
    return [_each(ins[0], lambda a, place: a[slice(*ends[place])])]


def _each(x: Held, how: Callable[[Any, int], Any]) -> Held:
    """Returns a value with each axis and its fade changed; a leaf no more."""
    parts = (
        tuple(None if a is None else how(a, place) for place, a in enumerate(part))
        for part in (x.axes, x.fades)
    )
    return Held(*parts, x.zero, x.known)


def _split(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    place, ends = eqn.params["axis"], np.cumsum([0, *eqn.params["sizes"]])
    return [
        _each(ins[0], lambda a, p, lo=lo, hi=hi: a[lo:hi] if p == place else a)
        for lo, hi in itertools.pairwise(ends)
    ]


def _concatenate(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    place = eqn.params["dimension"]
    axes, fades = list(ins[0].axes), list(ins[0].fades)
    for i in range(len(axes)):
        if i == place:
            if any(x.axes[i] is None for x in ins):
                for x in ins:
                    holds.join(units, None, x.axes[i], "")
                axes[i] = fades[i] = None
            else:
                axes[i] = np.concatenate([x.axes[i] for x in ins])
                fades[i] = np.concatenate([x.fades[i] for x in ins])
            continue
        for x in ins[1:]:
            holds.join(units, axes[i], x.axes[i], "they are concatenated")
        if axes[i] is not None:
            fades[i] = np.logical_and.reduce([x.fades[i] for x in ins])
    return [Held(tuple(axes), tuple(fades), all(x.zero for x in ins))]


def _stack(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    place, count = eqn.params["axis"], len(ins)
    axes, fades = list(ins[0].axes), list(ins[0].fades)
    for i in range(len(axes)):
        for x in ins[1:]:
            holds.join(units, axes[i], x.axes[i], "they are stacked")
        if axes[i] is not None:
            fades[i] = np.logical_and.reduce([x.fades[i] for x in ins])
    front = holds.pinned((count,))
    axes.insert(place, front.axes[0])
    fades.insert(place, front.fades[0])
    return [Held(tuple(axes), tuple(fades), all(x.zero for x in ins))]


def _unstack(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    place = eqn.params["axis"] % len(ins[0].axes)
    if ins[0].axes[place] is not None:
        units.pin(ins[0].axes[place], "each of its positions goes its own way")
    one = _taken(ins[0], [i for i in range(len(ins[0].axes)) if i != place]).plain()
    return [one for _ in eqn.outvars]


def _pad(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, value = ins
    config, shape = eqn.params["padding_config"], eqn.outvars[0].aval.shape
    axes: list[Any] = []
    fades: list[Any] = []
    for i, (axis, fade, edges, n) in enumerate(
        zip(x.axes, x.fades, config, shape, strict=True)
    ):
        if edges == (0, 0, 0):
            new, stays = axis, fade
        elif axis is None or edges[2] or min(edges) < 0:
            if axis is not None:
                units.pin(axis, "it is padded in between, or cropped")
            new = holds.pinned((n,)).axes[0]
            stays = holds.always(new, True)
        else:
            low, high = edges[:2]
            places = units.is_pinned(axis).all()  # of images, not channels
            beside = [
                np.full(k, PINNED) if places else units.fresh(k) for k in (low, high)
            ]
            new = np.concatenate([beside[0], axis, beside[1]])
            stays = np.pad(fade, (low, high), constant_values=value.zero)
        # Elsewhere along another axis stands what is padded, removed or not.
        if not value.zero and any(any(c) for k, c in enumerate(config) if k != i):
            stays = holds.always(new, False)
        axes.append(new)
        fades.append(stays)
    return [Held(tuple(axes), tuple(fades), x.zero and value.zero)]


def _iota(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del ins
    return [holds.free(units, eqn.params["shape"])]


def _random(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del ins
    return [holds.free(units, tuple(eqn.outvars[0].aval.shape))]


def _gather(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, index = ins
    numbers: lax.GatherDimensionNumbers = eqn.params["dimension_numbers"]
    batched = dict(
        zip(
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            strict=True,
        )
    )
    shape = eqn.outvars[0].aval.shape
    axes: list[Any] = [None] * len(shape)
    fades: list[Any] = [None] * len(shape)
    offsets = iter(numbers.offset_dims)
    for i, axis in enumerate(x.axes):
        if i in batched:
            holds.join(units, axis, index.axes[batched[i]], "gather goes through both")
            continue
        inside = i not in numbers.collapsed_slice_dims
        place = next(offsets) if inside else None
        size = eqn.params["slice_sizes"][i]
        whole = inside and axis is not None and size == len(axis)
        if whole and i not in numbers.start_index_map:
            axes[place], fades[place] = axis, x.fades[i]
            continue
        if axis is not None:
            units.pin(axis, "positions are looked up in it")
        if inside:
            axes[place] = holds.pinned((shape[place],)).axes[0]
            fades[place] = holds.always(axes[place], True)
    rest = [i for i in range(len(shape)) if i not in numbers.offset_dims]
    for place, axis in zip(rest, index.axes[:-1], strict=True):
        if axis is not None:
            units.pin(axis, "it is looked up position by position")
        axes[place] = axis
        fades[place] = holds.always(axis, False)
    return [Held(tuple(axes), tuple(fades), x.zero)]


def _dynamic_slice(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, sizes = ins[0], eqn.params["slice_sizes"]
    return [_windowed(units, x, sizes, "a part is cut out of it at run time")]


def _windowed(units: Units, x: Held, sizes: Sequence[Any], why: str) -> Held:
    """Returns a value of which whole axes stay; the others are pinned, and new."""
    axes, fades = [], []
    for axis, fade, n in zip(x.axes, x.fades, sizes, strict=True):
        if axis is not None and len(axis) != holds.length(n):
            units.pin(axis, why)
            axis = holds.pinned((n,)).axes[0]
            fade = holds.always(axis, True)
        axes.append(axis)
        fades.append(fade)
    return Held(tuple(axes), tuple(fades), x.zero)


def _update_slice(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, new = ins[:2]
    axes, fades = [], []
    for a, b, f, g in zip(x.axes, new.axes, x.fades, new.fades, strict=True):
        if a is not None and b is not None and len(a) == len(b):
            units.join(a, b, "one is written into the other")
        else:
            for axis in (a, b):
                if axis is not None:
                    units.pin(axis, "a part of it is written at run time")
        axes.append(a)
        fades.append(
            f & g if f is not None and g is not None and len(f) == len(g) else f
        )
    return [Held(tuple(axes), tuple(fades), x.zero and new.zero)]


def _tile(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    del units
    times = eqn.params["reps"]
    return [_each(ins[0], lambda a, place: np.tile(a, times[place]))]


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _update_slice,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "random_bits": _random,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
