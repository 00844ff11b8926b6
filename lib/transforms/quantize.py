"""Fake-quantized weights: few bits in the forward pass, floats for the optimiser.

`code`: the latent weights, `state`: bits, `decode`: the nearest point of a uniform
grid, straight through (Jacob et al. 2018, arXiv 1712.05877; Bengio et al. 2013,
arXiv 1308.3432).
The grid follows the latent weights at every step, so nothing in the state goes stale.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, numerics, representations, schedules
from lib.transforms import base

GRANULARITIES = ("tensor", "channel", "group")


def _view(shape: tuple[int, ...], granularity: str, group: int) -> tuple[int, ...]:
    """Returns the shape in which one axis or none is left out of the range."""
    if granularity == "group":
        return (-1, group, shape[-1])
    return shape


def _axes(rank: int, granularity: str) -> tuple[int, ...]:
    """Returns the axes of the view that share one scale."""
    match granularity:
        case "tensor":
            return tuple(range(rank))
        case "channel":
            return tuple(range(rank - 1))
    return (1,)


def _grid(w: jax.Array, bits, symmetric: bool, granularity: str) -> numerics.Grid:
    """Returns the grid over the range of `w`, seen through its view."""
    axes = _axes(w.ndim, granularity)
    if symmetric:  # one pass over the weights instead of two
        most = jnp.max(jnp.abs(w), axis=axes, keepdims=True)
        return numerics.grid(-most, most, bits, symmetric=True)
    least, most = (f(w, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
    return numerics.grid(least, most, bits, symmetric=False)


def quantize(
    *,
    bits: schedules.Strength,
    symmetric: bool = True,
    granularity: str = "channel",
    group: int = 0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Rounds weights to `2**bits` levels (symmetric: one fewer) around an exact zero.

    Args:
      bits: 2 to 8; a number, a schedule, or a traced value.
      symmetric: zero point 0 and range [-max|w|, max|w|]; else the affine grid over
        [min(w, 0), max(w, 0)].
      granularity: one scale a "tensor", one an output "channel" (the last axis), or
        one a "group" of `group` neighbours along the contraction axis (all axes but
        the last, flattened) of each channel.
      group: length of a group; 0 unless granularity is "group".
      pattern: regular expression over paths of the leaves to quantize.

    Raises:
      UserError: bits outside 2..8, an unknown granularity, a group without
        granularity "group"; at `encode`, a pattern that matches nothing, a leaf that
        groups do not divide, or a float16 leaf.
    """
    if granularity not in GRANULARITIES:
        raise errors.UserError(
            f"unknown granularity {granularity!r}; "
            f"{errors.hint(granularity, GRANULARITIES)}"
        )
    if (group > 0) != (granularity == "group"):
        raise errors.UserError(
            "quantize: a group length goes with granularity 'group', got "
            f"group={group} and granularity={granularity!r}"
        )
    if not callable(bits):
        numerics.check_bits(bits, "quantize")

    def whole_bits(step) -> jax.Array:
        return jnp.rint(jnp.asarray(schedules.at(bits, step))).astype(jnp.int32)

    def encode(weights):
        for path, w in weights.items():
            contraction = int(np.prod(w.shape[:-1]))
            if group and contraction % group:
                raise errors.UserError(
                    f"quantize: groups of {group} do not divide the {contraction} "
                    f"inputs of {path} with shape {tuple(w.shape)}"
                )
            if w.dtype == jnp.float16:  # whose smallest scales underflow to zero
                raise errors.UserError(
                    f"quantize: {path} is float16; expected float32 or bfloat16"
                )
        return weights, {path: whole_bits(0) for path in weights}

    def decode_leaf(w, bits):
        seen = w.reshape(_view(w.shape, granularity, group))
        grid = _grid(jax.lax.stop_gradient(seen), bits, symmetric, granularity)
        rounded = numerics.fake_quant(jax.lax.stop_gradient(seen), grid)
        # The range covers every weight, so nothing is clipped: a plain identity.
        return numerics.straight_through(w, rounded.reshape(w.shape))

    def decode(codes, states):
        return {p: decode_leaf(w, states[p]) for p, w in codes.items()}

    def update(codes, states, signals):
        del codes
        return {p: whole_bits(signals.step) for p in states}

    @jax.jit
    def all_codes(weights, states):
        """Returns {path: (codes, scale, zero point)}, all float32 but the scale."""
        found = {}
        for path, w in weights.items():
            seen = w.reshape(_view(w.shape, granularity, group))
            grid = _grid(seen, states[path], symmetric, granularity)
            codes = numerics.encode(seen, grid).reshape(w.shape)
            found[path] = codes, grid.scale.astype(w.dtype), grid.zero_point
        return found

    def freeze(leaves, states):
        for path, rep in leaves.items():
            if isinstance(rep, representations.LowRank):
                raise TypeError(f"quantize: {path} is a product; quantize its factors")
            # They may have been traced, or come from a schedule.
            numerics.check_bits(int(states[path]), f"quantize: {path}")
        weights = {p: representations.materialize(x) for p, x in leaves.items()}
        frozen = {}
        for path, (codes, scale, zero) in all_codes(weights, states).items():
            below = leaves[path]
            quantized = representations.Quantized(
                np.asarray(codes).astype(np.int8 if symmetric else np.uint8),
                np.asarray(scale),
                None if symmetric else np.asarray(zero).astype(np.uint8),
                int(states[path]),
                group,
            )
            # The zeros below are zeros here too: 0 is on every grid.
            if isinstance(below, representations.Sparse):
                quantized = representations.sparse(below.mask, quantized)
            frozen[path] = quantized
        return frozen

    kind = "symmetric" if symmetric else "affine"
    strength = "schedule" if callable(bits) else bits
    per = f"group {group}" if group else granularity
    how = f"quantize(bits={strength}, {kind}, per {per})"
    moving = update if callable(bits) else None
    return base.on_leaves(how, pattern, encode, decode, freeze, moving)
