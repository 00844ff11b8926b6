"""Equations that work element by element: their axes are joined, zeros may stay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import PINNED, Units

# name -> the operands of which one, or all, must be 0 for the result to be 0.
ANY = "any of them"
ALL = "all of them"
FIRST = "the first"
NONE = "it is not 0 where they are"

_KEEP_ZERO = """
abs asin asinh atan atanh bitcast_convert_type cbrt ceil conj convert_element_type copy
copy_p copy_to_host_async device_put erf erf_inv expm1 floor imag log1p name neg
optimization_barrier pbroadcast pcast pmax pmin psum psum_invariant pvary real
reduce_precision reshard round sharding_constraint sign sin sinh sqrt square
stop_gradient tan tanh to_edtype from_edtype
""".split()
_LOSE_ZERO = """
acos acosh clz complex cos cosh digamma eq eq_to erfc exp exp2 ge gt igamma igammac
is_finite le le_to lgamma log log2 logistic lt lt_to ne not nextafter one_minus_square
polygamma population_count pow random_clone random_fold_in random_seed random_unwrap
random_wrap regularized_incomplete_beta rem rsqrt
shift_left shift_right_arithmetic shift_right_logical zeta
""".split()
KINDS: dict[str, str] = {
    **dict.fromkeys(_KEEP_ZERO, FIRST),
    **dict.fromkeys(_LOSE_ZERO, NONE),
    **dict.fromkeys(("mul", "and"), ANY),
    **dict.fromkeys(("add", "add_any", "sub", "or", "xor", "atan2"), ALL),
    **dict.fromkeys(("max", "min", "div", "clamp", "select_n", "integer_pow"), FIRST),
    "fake_quant": FIRST,  # 0 is on every grid
}
# Not defined at 0, so that what a mask makes 0 must not come to them.
_POLES = ("log", "log2", "rsqrt", "digamma", "lgamma", "acosh")


def rule(units: Units, eqn: core.JaxprEqn, ins: Sequence[Held]) -> list[Held]:
    """Returns what is known of the outputs of an equation of `KINDS`."""
    name = eqn.primitive.name
    outs = []
    for number, var in enumerate(eqn.outvars):
        if len(eqn.outvars) > 1:  # of psum and optimization_barrier, one for one
            outs.append(ins[number])
            continue
        outs.append(_one(units, eqn, name, tuple(var.aval.shape), ins))
    return outs


def _one(units, eqn, name, shape, ins) -> Held:
    zeros = _zeros(name, eqn, ins)
    if name == "bitcast_convert_type" and len(ins[0].axes) != len(shape):
        holds.pin(units, ins[0], "its elements are cut into bits")
        return holds.pinned(shape)
    axes, fades = [], []
    for place, n in enumerate(shape):
        full = [x for x in ins if _spans(x, place, n, len(shape))]
        axis = full[0].axes[place] if full else holds.pinned((n,)).axes[0]
        for other in full[1:]:
            holds.join(units, axis, other.axes[place], f"{name} takes both")
        axes.append(axis)
        fades.append(zeros(units, axis, [_fade(x, place, full, axis) for x in ins]))
    made = Held(tuple(axes), tuple(fades))
    whole = zeros(units, np.zeros(1, np.int64), [np.array([x.zero]) for x in ins])
    known = ins[0].known if name == "convert_element_type" else None
    made = made._replace(zero=bool(whole[0]), known=known)
    if len(ins) == 1 and KINDS[name] == FIRST:
        made = made._replace(leaf=ins[0].leaf, places=ins[0].places)
    return made


def _spans(x: Held, place: int, n: Any, rank: int) -> bool:
    """Returns whether an operand has an axis of its own there, not one to repeat."""
    if len(x.axes) != rank:
        return False
    axis = x.axes[place]
    return holds.length(n) is None if axis is None else len(axis) == n


def _fade(x: Held, place: int, full: Sequence[Held], axis: Any) -> np.ndarray | None:
    if any(x is one for one in full):
        return x.fades[place]
    return holds.always(axis, x.zero)


Zeros = Callable[[Units, Any, list[Any]], Any]


def _zeros(name: str, eqn: core.JaxprEqn, ins: Sequence[Held]) -> Zeros:
    """Returns a function from the fades of the operands to that of the result."""
    kind = KINDS[name]

    def combine(units: Units, axis: Any, fades: list[Any]) -> Any:
        if axis is None:
            return None
        if name in _POLES or (name == "integer_pow" and eqn.params["y"] <= 0):
            _pin_poles(units, axis, fades[0], name)
            return np.zeros(len(axis), bool)
        if name == "pow" and not (ins[1].known is not None and ins[1].known > 0):
            _pin_poles(units, axis, fades[0], name)
        if name in ("div", "rem"):
            _pin_poles(units, axis, fades[1], name)
        if name == "div":
            return fades[0]
        if name in ("max", "min", "clamp"):
            return _bounded(name, ins, fades)
        if name == "select_n":
            return np.logical_and.reduce(fades[1:])
        if kind == ANY:
            return np.logical_or.reduce(fades)
        if kind == ALL:
            return np.logical_and.reduce(fades)
        return fades[0] if kind == FIRST else np.zeros(len(axis), bool)

    return combine


def _pin_poles(units: Units, axis: np.ndarray, fade: np.ndarray, name: str) -> None:
    # (A value that is known to be 0 for good is the program's own affair.)
    live = fade & (axis != PINNED)
    if live.any():
        units.pin(axis[live], f"{name} is not defined where a mask makes it 0")


def _bounded(name: str, ins: Sequence[Held], fades: list[np.ndarray]) -> np.ndarray:
    """Returns the fade of max, min and clamp, whose bounds may be on 0's other side."""
    if name == "clamp":
        low, high = ins[0].known, ins[2].known
        if low is not None and high is not None and low <= 0 <= high:
            return fades[1]
        return np.logical_and.reduce(fades)
    for x, y in ((0, 1), (1, 0)):
        bound = ins[y].known
        if bound is not None and (bound <= 0 if name == "max" else bound >= 0):
            return fades[x]
    return np.logical_and.reduce(fades)
