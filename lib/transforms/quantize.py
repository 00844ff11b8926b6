"""Fake-quantized weights: few bits in the forward pass, floats for the optimiser.

`code`: the latent weights, `state`: bits, `decode`: the nearest point of a uniform
grid, straight through (Jacob et al. 2018, arXiv 1712.05877; Bengio et al. 2013,
arXiv 1308.3432).
The grid covers the latent weights at every step; or, with `range="mse"`, the state
holds its range too, chosen anew after each step.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, numerics, representations, schedules
from lib.transforms import base, ranges
from lib.transforms import granularity as granularities

RANGES = ("max", "mse")
ROUNDINGS = ("nearest", "stochastic")


def _either_neighbour(x: jax.Array, grid: numerics.Grid, key: jax.Array) -> jax.Array:
    """Returns a point of the grid beside each `x`, whose mean is `x` if it is inside.

    0 stays 0.
    """
    places = x.astype(jnp.float32) / grid.scale
    least, most = grid.low - grid.zero_point, grid.high - grid.zero_point
    below = jnp.floor(places)
    drawn = jax.random.uniform(key, x.shape)
    chosen = below + (drawn < places - below)
    return (jnp.clip(chosen, least, most) * grid.scale).astype(x.dtype)


def quantize(
    *,
    bits: schedules.Strength,
    symmetric: bool = True,
    granularity: str = "channel",
    group: int = 0,
    range: str = "max",
    rounding: str = "nearest",
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
      range: "max" covers every weight; "mse" shrinks the range of each scale to the
        share of least squared error (`ranges.least_error`), at the cost of 32 roundings
        a step. Weights beyond are clipped, and their derivative is 1 like all others',
        so that they can come back.
      rounding: "stochastic" trains on weights rounded up with the probability of what
        is cut off, so that their mean is the weight (Gupta et al. 2015, arXiv
        1502.02551, section 3); `decode` rounds to the nearest all the same.
      pattern: regular expression over paths of the leaves to quantize.

    Raises:
      UserError: bits outside 2..8, an unknown granularity, range or rounding, a group
        without granularity "group"; at `encode`, a pattern that matches nothing, a leaf
        that groups do not divide, or a float16 leaf.
    """
    granularities.check(granularity, group, "quantize")
    errors.lookup(dict.fromkeys(RANGES), range, "range of quantize")
    errors.lookup(dict.fromkeys(ROUNDINGS), rounding, "rounding of quantize")
    if not callable(bits):
        numerics.check_bits(bits, "quantize")

    def whole_bits(step) -> jax.Array:
        return jnp.rint(jnp.asarray(schedules.at(bits, step))).astype(jnp.int32)

    def seen(w):
        return granularities.seen(w, granularity, group)

    def state_of(w, bits):
        """Returns bits; or (bits, smallest, largest), where those are chosen."""
        if range == "max":
            return bits
        return bits, *ranges.least_error(*seen(w), bits, symmetric=symmetric)

    def grid_of(w, state) -> numerics.Grid:
        if range == "max":
            ends = ranges.full(*seen(w), symmetric=symmetric)
            return numerics.grid(*ends, state, symmetric=symmetric)
        bits, *ends = state
        return numerics.grid(*ends, bits, symmetric=symmetric)

    def bits_of(state):
        return state if range == "max" else state[0]

    def encode(weights):
        for path, w in weights.items():
            granularities.check_leaf(path, w, group, "quantize")
        return weights, {p: state_of(w, whole_bits(0)) for p, w in weights.items()}

    def decode_leaf(w, state):
        fixed = jax.lax.stop_gradient(w)
        rounded = numerics.fake_quant(seen(fixed)[0], grid_of(fixed, state))
        # A plain identity: nothing is clipped, or what is shall come back.
        return numerics.straight_through(w, rounded.reshape(w.shape))

    def decode(codes, states):
        return {p: decode_leaf(w, states[p]) for p, w in codes.items()}

    def sample(codes, states, key):
        sampled = {}
        paths = sorted(codes)  # jit sorts the keys of dicts; the keys go by place
        for path, drawn in zip(paths, base.keys(key, len(paths)), strict=True):
            w = codes[path]
            fixed = jax.lax.stop_gradient(w)
            grid = grid_of(fixed, states[path])
            rounded = _either_neighbour(seen(fixed)[0], grid, drawn)
            sampled[path] = numerics.straight_through(w, rounded.reshape(w.shape))
        return sampled

    def update(codes, states, signals):
        def bits_at(state):
            return whole_bits(signals.step) if callable(bits) else bits_of(state)

        return {p: state_of(codes[p], bits_at(state)) for p, state in states.items()}

    @jax.jit
    def all_codes(weights, states):
        """Returns {path: (codes, scale, zero point)}, all float32 but the scale."""
        found = {}
        for path, w in weights.items():
            grid = grid_of(w, states[path])
            codes = numerics.encode(seen(w)[0], grid).reshape(w.shape)
            found[path] = codes, grid.scale.astype(w.dtype), grid.zero_point
        return found

    def freeze(leaves, states):
        for path, rep in leaves.items():
            if isinstance(rep, representations.LowRank):
                raise TypeError(f"quantize: {path} is a product; quantize its factors")
            # They may have been traced, or come from a schedule.
            numerics.check_bits(int(bits_of(states[path])), f"quantize: {path}")
        weights = {p: representations.materialize(x) for p, x in leaves.items()}
        frozen = {}
        for path, (codes, scale, zero) in all_codes(weights, states).items():
            below = leaves[path]
            quantized = representations.Quantized(
                np.asarray(codes).astype(np.int8 if symmetric else np.uint8),
                np.asarray(scale),
                None if symmetric else np.asarray(zero).astype(np.uint8),
                int(bits_of(states[path])),
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
    clipped = ", range mse" if range == "mse" else ""
    clipped += ", stochastic" if rounding == "stochastic" else ""
    how = f"quantize(bits={strength}, {kind}, per {per}{clipped})"
    moving = update if callable(bits) or range == "mse" else None
    return base.on_leaves(
        how,
        pattern,
        encode,
        decode,
        freeze,
        moving,
        sample=sample if rounding == "stochastic" else None,
    )
