"""Where the channels of a value stand, through each kind of equation.

A value's *labels* are an int array of its shape: the number of the channel that each
element belongs to, or `NONE`. If each channel of an operand is multiplied by a positive
factor of its own, the labels of an equation's result say by which factor the result is
multiplied; None says that no such factors exist (the equation is not positively
homogeneous, or mixes channels).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lib.program.preserving.graph import Node

NONE = -1  # the label of what belongs to no channel
Labels = np.ndarray

# Equations of one operand that change no element's channel.
SAME = (
    "abs",
    "convert_element_type",
    "copy",
    "copy_p",
    "name",
    "neg",
    "optimization_barrier",
    "sharding_constraint",
    "stop_gradient",
)
REDUCES = ("reduce_max", "reduce_min", "reduce_sum")
WINDOWS = ("reduce_window_max", "reduce_window_min", "reduce_window_sum")


def _broadcast(x: np.ndarray, p: Any) -> np.ndarray:
    shape = [1] * len(p["shape"])
    for axis, place in enumerate(p["broadcast_dimensions"]):
        shape[place] = x.shape[axis]
    return np.broadcast_to(x.reshape(shape), p["shape"])


def _slice(x: np.ndarray, p: Any) -> np.ndarray:
    steps = p["strides"] or [None] * x.ndim
    ends = zip(p["start_indices"], p["limit_indices"], steps, strict=True)
    return x[tuple(slice(*end) for end in ends)]


# Equations of one operand that move elements: (array, parameters) -> array.
MOVES: dict[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "broadcast_in_dim": _broadcast,
    "expand_dims": lambda x, p: np.expand_dims(x, p["dimensions"]),
    "reshape": lambda x, p: x.reshape(p["new_sizes"]),
    "rev": lambda x, p: np.flip(x, p["dimensions"]),
    "slice": _slice,
    "squeeze": lambda x, p: np.squeeze(x, p["dimensions"]),
    "transpose": lambda x, p: np.transpose(x, p["permutation"]),
}


FOLLOWED = (*SAME, *MOVES, *REDUCES, *WINDOWS)  # what `moved` has a rule for


def moved(node: Node, labels: Labels) -> Labels | None:
    """Returns the result's labels of an equation of one operand; None: no rule."""
    kind, params = node.kind, node.eqn.params
    if kind in SAME:
        return labels
    if kind in MOVES:
        return np.ascontiguousarray(MOVES[kind](labels, params))
    if kind in REDUCES:
        axes = tuple(params["axes"])
        return labels.max(axes) if constant(labels, axes) else None
    if kind in WINDOWS:
        names = ("window_dimensions", "window_strides", "padding")
        window = [params[name] for name in names]
        dilations = [params["base_dilation"], params["window_dilation"]]
        if any(d != 1 for dilation in dilations for d in dilation):
            return None

        def most(x):
            x = jnp.asarray(x, jnp.float32)
            return np.asarray(lax.reduce_window(x, -jnp.inf, lax.max, *window), int)

        found = most(labels)
        return found if np.array_equal(found, -most(-labels)) else None
    return None


def moved_back(node: Node, labels: Labels, shape: Sequence[int]) -> Labels | None:
    """Returns the operand's labels, given the result's; None: they contradict."""
    if node.kind in SAME:
        return labels
    if node.kind not in MOVES:
        return None
    count = int(np.prod(shape, dtype=int))
    places = MOVES[node.kind](np.arange(count).reshape(shape), node.eqn.params)
    found = np.full(count, NONE)
    found[places.reshape(-1)] = labels.reshape(-1)
    if not np.array_equal(found[places], labels):
        return None
    return found.reshape(shape)


def constant(labels: Labels, axes: Sequence[int]) -> bool:
    """Returns whether labels do not vary along these axes."""
    axes = tuple(axes)
    return bool((labels.max(axes) == labels.min(axes)).all())


def gathered(labels: Labels, shape: Sequence[int]) -> Labels | None:
    """Returns the labels of an operand that broadcasts to the result with `labels`."""
    if len(shape) != labels.ndim:  # a scalar against an array
        axes = tuple(range(labels.ndim))
    else:
        axes = tuple(a for a, n in enumerate(shape) if n != labels.shape[a])
    if not constant(labels, axes):
        return None
    return labels.max(axes, keepdims=True).reshape(shape) if axes else labels


def padded(node: Node, labels: Labels) -> Labels | None:
    """Returns the labels of a value padded with zeros, which belong to any channel."""
    for axis, (low, high, inside) in enumerate(node.eqn.params["padding_config"]):
        if low < 0 or high < 0 or inside:
            return None
        if low or high:
            widths = [(0, 0)] * labels.ndim
            widths[axis] = (low, high)
            if constant(labels, (axis,)):
                labels = np.pad(labels, widths, mode="edge")
            else:
                labels = np.pad(labels, widths, constant_values=NONE)
    return labels


def _dot_axes(node: Node, side: int) -> tuple[tuple[int, ...], ...]:
    """Returns the contracted, batch and free axes of an operand."""
    contracted, batch = node.eqn.params["dimension_numbers"]
    taken = (*contracted[side], *batch[side])
    rank = len(node.eqn.invars[side].aval.shape)
    free = tuple(a for a in range(rank) if a not in taken)
    return tuple(contracted[side]), tuple(batch[side]), free


def outputs(node: Node, side: int) -> tuple[Labels, Labels]:
    """Returns the labels of a weight and of the result: a channel for each output.

    Args:
      node: a contraction.
      side: 0 or 1, which operand is the weight.
    """
    shape = node.eqn.invars[side].aval.shape
    if node.kind == "dot_general":
        _, batch, free = _dot_axes(node, side)
        axes = (*batch, *free)
    else:
        axes = (node.eqn.params["dimension_numbers"].rhs_spec[0],)
    labels = _along(np.arange(int(np.prod([shape[a] for a in axes]))), axes, shape)
    return labels, through(node, side, labels)


def _along(values: np.ndarray, axes: Sequence[int], shape: Sequence[int]) -> Labels:
    """Returns `values`, over these axes, as an array of a shape."""
    values = values.reshape([shape[a] for a in axes])
    order = np.argsort(axes)
    place = [shape[a] if a in axes else 1 for a in range(len(shape))]
    return np.broadcast_to(values.transpose(order).reshape(place), shape)


def through(node: Node, side: int, labels: Labels) -> Labels | None:
    """Returns the result's labels of a contraction, if the channels do not mix."""
    out = node.eqn.outvars[0].aval.shape
    if node.kind == "dot_general":
        contracted, batch, free = _dot_axes(node, side)
        if not constant(labels, contracted):
            return None
        kept = labels.transpose((*contracted, *batch, *free))
        kept = kept.reshape((-1, *kept.shape[len(contracted) :]))[0]
        # The result's axes: batch, those free on the left, those on the right.
        first = len(batch) if side == 0 else len(out) - len(free)
        axes = (*range(len(batch)), *range(first, first + len(free)))
        return _along(kept.reshape(-1), axes, out)
    dims = node.eqn.params["dimension_numbers"]
    others = [a for a in range(labels.ndim) if a != dims.rhs_spec[0]]
    if side != 1 or node.eqn.params["batch_group_count"] > 1:
        return None
    if not constant(labels, others):
        return None
    return _along(labels.max(tuple(others)), (dims.out_spec[1],), out)


def entering(node: Node, side: int, labels: Labels) -> tuple[tuple[int, ...], Labels]:
    """Returns the axes of a contraction's input that meet the weight, and their labels.

    Args:
      node: a contraction with a weight.
      side: 0 or 1, which operand is the input.
      labels: of the input.

    Raises:
      ValueError: the labels vary along other axes.
    """
    if node.kind == "dot_general":
        contracted, batch, free = _dot_axes(node, side)
        axes, others = (*batch, *contracted), free
    else:
        axes = (node.eqn.params["dimension_numbers"].lhs_spec[1],)
        others = tuple(a for a in range(labels.ndim) if a not in axes)
    if not constant(labels, others):
        raise ValueError("its channels are not those that the weight sums over")
    kept = labels.max(others) if others else labels
    order = np.argsort(np.argsort(axes))  # of the axes that are left
    return axes, kept.transpose(order)


def meeting(node: Node, side: int, labels: Labels) -> Labels:
    """Returns the labels of the weight that meets an input with these labels.

    Args:
      node: a contraction with a weight.
      side: 0 or 1, which operand is the input.
      labels: of the input.

    Raises:
      ValueError: the labels vary along axes that the weight does not sum over.
    """
    weight = node.eqn.invars[1 - side].aval.shape
    params = node.eqn.params
    _, kept = entering(node, side, labels)
    if node.kind == "dot_general":
        contracted, batch, _ = _dot_axes(node, 1 - side)
        return _along(kept.reshape(-1), (*batch, *contracted), weight)
    if side != 0 or params["batch_group_count"] > 1:
        raise ValueError("a convolution of groups of images")
    out_axis, in_axis, *_ = params["dimension_numbers"].rhs_spec
    outs, ins = weight[out_axis], weight[in_axis]
    group = np.arange(outs) // (outs // params["feature_group_count"])
    table = kept[group[:, None] * ins + np.arange(ins)[None, :]]
    return _along(table.reshape(-1), (out_axis, in_axis), weight)


def same(first: Labels, *others: Labels) -> bool:
    """Returns whether labels agree everywhere."""
    return all(np.array_equal(first, other) for other in others)
