"""Equations whose own numbers are sizes: each one at the sizes that are left."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from lib.program.interpreter import bind

Keep = tuple[np.ndarray | None, ...]  # per axis: positions that are left; None for all


class Sizes(NamedTuple):
    """The sizes of one value.

    Attributes:
      shape: before the cut.
      keep: what is left of each axis.
    """

    shape: tuple[Any, ...]
    keep: Keep

    @property
    def small(self) -> tuple[Any, ...]:
        """The shape after the cut."""
        both = zip(self.shape, self.keep, strict=True)
        return tuple(n if keep is None else len(keep) for n, keep in both)


def take(x: Any, keep: Keep) -> Any:
    """Returns an array at the positions that are left."""
    for axis, left in enumerate(keep):
        if left is None:
            continue
        if isinstance(x, jax.core.Tracer):
            x = picked(x, left, axis)
        else:  # known now, and a constant of what is traced
            x = np.take(np.asarray(x), left, axis=axis)
    return x


def picked(x: jax.Array, places: np.ndarray, axis: int) -> jax.Array:
    """Returns an array at some positions along an axis, in rising order.

    Sliced, not gathered: whoever follows the result sees which positions it keeps.
    """
    parts, first = [], 0
    while first < len(places):
        step = int(places[first + 1] - places[first]) if first + 1 < len(places) else 1
        last = first
        while last + 1 < len(places) and places[last + 1] - places[last] == step:
            last += 1
        start, stop = int(places[first]), int(places[last]) + 1
        parts.append(lax.slice_in_dim(x, start, stop, step, axis))
        first = last + 1
    if not parts:
        return lax.slice_in_dim(x, 0, 0, 1, axis)
    return parts[0] if len(parts) == 1 else lax.concatenate(parts, axis)


Resize = Callable[
    [core.JaxprEqn, Sequence[Any], Sequence[Sizes], Sequence[Sizes]], list[Any]
]


def _shape(eqn, operands, ins, outs):
    return bind(eqn, operands, shape=outs[0].small)


def _reshape(eqn, operands, ins, outs):
    return [lax.reshape(operands[0], outs[0].small)]


def _iota(eqn, operands, ins, outs):
    along = eqn.params["dimension"]
    shape = list(outs[0].small)
    shape[along] = outs[0].shape[along]
    (whole,) = bind(eqn, operands, shape=tuple(shape))
    alone = [keep if i == along else None for i, keep in enumerate(outs[0].keep)]
    return [take(whole, tuple(alone))]


def _slice(eqn, operands, ins, outs):
    p, x = eqn.params, operands[0]
    steps = p["strides"] or [1] * len(ins[0].shape)
    starts, limits, strides = [], [], []
    for i, n in enumerate(ins[0].small):
        start, limit, step = p["start_indices"][i], p["limit_indices"][i], steps[i]
        if ins[0].keep[i] is not None:
            wanted = np.arange(start, limit, step)
            if outs[0].keep[i] is not None:
                wanted = wanted[outs[0].keep[i]]
            places = np.searchsorted(ins[0].keep[i], wanted)
            x = picked(x, places, i)
            start, limit, step = 0, len(places), 1
        elif n == ins[0].shape[i] and outs[0].keep[i] is not None:
            raise AssertionError("a slice is cut where its operand is whole")
        starts.append(start)
        limits.append(limit)
        strides.append(step)
    return [lax.slice(x, starts, limits, strides)]


def _split(eqn, operands, ins, outs):
    axis = eqn.params["axis"]
    return bind(eqn, operands, sizes=tuple(out.small[axis] for out in outs))


def _pad(eqn, operands, ins, outs):
    config = []
    for i, edges in enumerate(eqn.params["padding_config"]):
        if outs[0].keep[i] is not None:
            low, n = edges[0], ins[0].shape[i]
            left = outs[0].keep[i]
            edges = (int((left < low).sum()), int((left >= low + n).sum()), 0)
        config.append(edges)
    return bind(eqn, operands, padding_config=tuple(config))


def _sliced(eqn, operands, ins, outs):
    given = eqn.params["slice_sizes"]
    sizes = tuple(
        small if keep is not None else size
        for size, small, keep in zip(given, ins[0].small, ins[0].keep, strict=True)
    )
    return bind(eqn, operands, slice_sizes=sizes)


def _conv(eqn, operands, ins, outs):
    groups, dims = eqn.params["feature_group_count"], eqn.params["dimension_numbers"]
    if groups > 1:
        channels = dims.lhs_spec[1]
        groups = ins[0].small[channels] * groups // ins[0].shape[channels]
    return bind(eqn, operands, feature_group_count=groups)


RESIZE: dict[str, Resize] = {
    "broadcast_in_dim": _shape,
    "conv_general_dilated": _conv,
    "dynamic_slice": _sliced,
    "gather": _sliced,
    "iota": _iota,
    "pad": _pad,
    "random_bits": _shape,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
}


def zeros(var: Any, sizes: Sizes) -> jax.Array:
    """Returns zeros of the type of a variable, at the sizes that are left."""
    return jnp.zeros(sizes.small, var.aval.dtype)
