"""Contractions, reductions and windows: what is summed over must be 0 where removed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import PINNED, Units


def _summed(units: Units, axis: Any, fade: Any, what: str) -> None:
    """Pins the positions of a summed axis at which a mask would leave something."""
    if axis is not None and not fade.all():
        units.pin(axis[~fade], f"{what} goes over values that a mask does not make 0")


def _either(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a | b


def _dot(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    a, b = ins
    (left, right), (rows, columns) = eqn.params["dimension_numbers"]
    for i, j in zip(left, right, strict=True):
        holds.join(units, a.axes[i], b.axes[j], "a product goes over both")
        _summed(units, a.axes[i], _either(a.fades[i], b.fades[j]), "a product")
    axes, fades = [], []
    for i, j in zip(rows, columns, strict=True):
        holds.join(units, a.axes[i], b.axes[j], "a product goes through both")
        axes.append(a.axes[i])
        fades.append(_either(a.fades[i], b.fades[j]))
    for x, used in ((a, (*left, *rows)), (b, (*right, *columns))):
        for i in range(len(x.axes)):
            if i not in used:
                axes.append(x.axes[i])
                fades.append(x.fades[i])
    return [Held(tuple(axes), tuple(fades), a.zero or b.zero)]


def _conv(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    x, w = ins
    p, shape = eqn.params, eqn.outvars[0].aval.shape
    dims, groups = p["dimension_numbers"], p["feature_group_count"]
    batch, channels, *places = dims.lhs_spec
    outputs, inputs, *window = dims.rhs_spec
    for held, axes in ((x, places), (w, window)):
        for i in axes:
            if held.axes[i] is not None:
                units.pin(held.axes[i], "a window of a convolution moves along it")
    c, o = x.axes[channels], w.axes[outputs]
    if p["batch_group_count"] != 1 or c is None or o is None:
        for held in ins:
            holds.pin(units, held, "a convolution in groups of the batch")
        return [holds.pinned(shape)]
    fade = w.fades[outputs]
    if groups == 1:
        holds.join(units, c, w.axes[inputs], "a convolution goes over both")
        both = _either(x.fades[channels], w.fades[inputs])
        _summed(units, c, both, "a convolution")
    else:  # a group goes as a whole
        each = c.reshape(groups, -1), o.reshape(groups, -1)
        for rows in each:
            for column in rows.T:
                units.join(each[0][:, 0], column, "they are one group")
        units.pin(w.axes[inputs], "it is the inputs of every group of a convolution")
        inside = x.fades[channels].reshape(groups, -1).all(1)
        fade = fade | np.repeat(inside, len(o) // groups)
    axes: list[Any] = [None] * len(shape)
    fades: list[Any] = [None] * len(shape)
    for place, i in enumerate(dims.out_spec):
        axes[i] = holds.pinned((shape[i],)).axes[0]
        fades[i] = holds.always(axes[i], True)
        if place == 0:
            axes[i], fades[i] = x.axes[batch], x.fades[batch]
        elif place == 1:
            axes[i], fades[i] = o, fade
    return [Held(tuple(axes), tuple(fades), x.zero or w.zero)]


def _reduce(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    name, gone = eqn.primitive.name, set(eqn.params["axes"])
    outs = []
    for x in ins:
        for i in gone:
            if name in ("reduce_sum", "reduce_sum_invariant"):
                _summed(units, x.axes[i], x.fades[i], "a sum")
            elif x.axes[i] is not None:
                units.pin(x.axes[i], f"{name} goes over it")
        kept = [i for i in range(len(x.axes)) if i not in gone]
        stay = name in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
        fades = tuple(
            x.fades[i] if stay else holds.always(x.axes[i], False) for i in kept
        )
        axes = tuple(x.axes[i] for i in kept)
        outs.append(Held(axes, fades, stay and x.zero))
    return outs[: len(eqn.outvars)]


def _window(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    p, x = eqn.params, ins[0]
    axes, fades = list(x.axes), list(x.fades)
    for i, n in enumerate(eqn.outvars[0].aval.shape):
        still = p["window_dimensions"][i] == 1 and p["window_strides"][i] == 1
        if still and tuple(p["padding"][i]) == (0, 0):
            continue
        if axes[i] is not None:
            units.pin(axes[i], "a window moves along it")
        axes[i] = holds.pinned((n,)).axes[0]
        fades[i] = holds.always(axes[i], True)
    if len(ins) > 1 and not all(one.zero for one in ins[1:]):  # a generic start
        fades = [holds.always(a, False) for a in axes]
    return [Held(tuple(axes), tuple(fades), x.zero)]


def _along(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    name = eqn.primitive.name
    place = eqn.params["axis" if "axis" in eqn.params else "dimension"]
    for x in ins:
        if x.axes[place] is not None:
            units.pin(x.axes[place], f"{name} goes along it")
    if name == "sort":
        for i in range(len(ins[0].axes)):
            for x in ins[1:]:
                holds.join(units, ins[0].axes[i], x.axes[i], "they are sorted alike")
    stays = name in ("cumsum", "cummax", "cummin", "cumprod", "sort")
    return [x.plain() if stays else _unfaded(x) for x in ins]


def _top_k(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    (x,) = ins
    place = eqn.params.get("axis", len(x.axes) - 1) % len(x.axes)
    if x.axes[place] is not None:
        units.pin(x.axes[place], "the largest along it are chosen")
    axes = list(x.axes)
    axes[place] = np.full(eqn.outvars[0].aval.shape[place], PINNED)
    one = _unfaded(Held(tuple(axes), tuple(axes)))
    return [one, one]


def _unfaded(x: Held) -> Held:
    return Held(x.axes, tuple(holds.always(a, False) for a in x.axes))


_REDUCES = """
argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum
reduce_sum_invariant reduce_xor
""".split()
_WINDOWS = """
reduce_window reduce_window_max reduce_window_min reduce_window_sum
""".split()
RULES = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "top_k": _top_k,
    **dict.fromkeys(_REDUCES, _reduce),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(
        ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "sort"), _along
    ),
}
