"""Learned step size: the distance between the points of a weight's grid is trained.

`code`: `{"w", "step"}`, the latent weights and the step as a multiple of what it began
with, `state`: bits and that beginning, `decode`: the nearest point of the grid (Esser
et al. 2020, arXiv 1902.08153).

The multiple begins at 1 for every leaf, so that one learning rate fits them all under
Adam; its derivative is scaled such that under SGD, with or without momentum, the step
itself moves exactly as in the paper.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, representations
from lib.transforms import base

GRANULARITIES = ("tensor", "channel")

# The step stays positive: it goes no lower than this share of its beginning. Below, its
# derivative is as ever, so that it comes back.
LEAST = 2.0**-8


def _axes(rank: int, granularity: str) -> tuple[int, ...]:
    """Returns the axes of a leaf that share one step."""
    return tuple(range(rank if granularity == "tensor" else rank - 1))


def codes_of(bits: int | jax.Array, *, symmetric: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the least and greatest code, -Q_N and Q_P, of signed integers."""
    _, high = numerics.levels(bits, symmetric=True)
    return (-high if symmetric else -high - 1), high


def first_step(w: jax.Array, bits: int | jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns `2 * mean|w| / sqrt(Q_P)` (section 2.1), positive float32.

    But no more than `max|w| / Q_P`, which covers every weight: at 8 bits the paper's
    step would leave most codes without use. Weights that are 0 do not count, as after
    pruning. The `axes` have length 1.
    """
    size = jnp.abs(w.astype(jnp.float32))
    count = jnp.sum(size > 0, axis=axes, keepdims=True)
    mean = jnp.sum(size, axis=axes, keepdims=True) / jnp.maximum(count, 1)
    _, high = codes_of(bits, symmetric=True)
    most = jnp.max(size, axis=axes, keepdims=True)
    step = jnp.minimum(2 * mean / jnp.sqrt(high), most / high)
    # All zeros, or too small for a step whose inverse is finite: any grid holds them.
    return jnp.where(step > 1e-30, step, jnp.ones_like(step))


def lsq(
    *,
    bits: int | jax.Array,
    symmetric: bool = True,
    granularity: str = "channel",
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Rounds weights to whole multiples of a step that is trained with them.

    With v = w / s: `decode` is `round(clip(v, -Q_N, Q_P)) * s`, its derivative to w is
    1 inside the range and 0 outside, and to s it is `round(v) - v` inside and -Q_N or
    Q_P outside (eqs. 1 to 3 and 5), times `1 / sqrt(N * Q_P)`, N the number of weights
    that share the step (section 2.2). Inside has half a step of slack
    (`numerics.fake_quant`).

    Weight decay, which is of weights, leaves the steps alone.

    Args:
      bits: 2 to 8; may be traced.
      symmetric: Q_N = Q_P = 2**(bits - 1) - 1; else, as in the paper, Q_N is one more,
        and the codes are stored unsigned.
      granularity: one step a "tensor", as in the paper, or one an output "channel"
        (the last axis).
      pattern: regular expression over paths of the leaves to quantize.

    Raises:
      UserError: bits outside 2..8, an unknown granularity; at `encode`, a pattern that
        matches nothing, or a float16 leaf.
    """
    errors.lookup(dict.fromkeys(GRANULARITIES), granularity, "granularity of lsq")
    numerics.check_bits(bits, "lsq")

    def encode(weights):
        codes, states = {}, {}
        for path, w in weights.items():
            if w.dtype == jnp.float16:  # whose smallest steps underflow to zero
                raise errors.UserError(
                    f"lsq: {path} is float16; expected float32 or bfloat16"
                )
            begin = first_step(w, bits, _axes(w.ndim, granularity))
            codes[path] = {"w": w, "step": jnp.ones_like(begin)}
            states[path] = {"begin": begin, "bits": jnp.asarray(bits, jnp.int32)}
        return codes, states

    def grid_of(step, state, dtype) -> numerics.Grid:
        """Returns the grid; its scale is exact in `dtype`, as the file will hold it."""
        info = jnp.finfo(dtype)
        scale = jnp.maximum(step, LEAST) * state["begin"]
        scale = lax.reduce_precision(scale, info.nexp, info.nmant)
        scale = lax.optimization_barrier(scale)
        low, high = codes_of(state["bits"], symmetric=symmetric)
        if symmetric:
            return numerics.Grid(scale, jnp.zeros_like(scale), low, high)
        zero_point = jnp.full_like(scale, -low)
        return numerics.Grid(scale, zero_point, jnp.zeros_like(low), high - low)

    def decode_leaf(code, state):
        w, step = code["w"], code["step"]
        grid = grid_of(lax.stop_gradient(step), state, w.dtype)
        _, most = codes_of(state["bits"], symmetric=symmetric)
        share = 1 / jnp.sqrt(most * (w.size // step.size))
        scaled = step * (share / state["begin"])
        scale = numerics.straight_through(scaled, grid.scale)
        return numerics.learned_fake_quant(w, grid._replace(scale=scale))

    def decode(codes, states):
        return {path: decode_leaf(code, states[path]) for path, code in codes.items()}

    @jax.jit
    def all_codes(codes, states):
        """Returns {path: (codes, scale, zero point)}, all float32 but the scale."""
        found = {}
        for path, code in codes.items():
            w = code["w"]
            grid = grid_of(code["step"], states[path], w.dtype)
            scale = grid.scale.astype(w.dtype)
            found[path] = numerics.encode(w, grid), scale, grid.zero_point
        return found

    def freeze(leaves, states):
        frozen, codes = {}, {}
        for path, code in leaves.items():
            if isinstance(code["w"], representations.LowRank):
                raise TypeError(f"lsq: {path} is a product; quantize its factors")
            codes[path] = {k: representations.materialize(x) for k, x in code.items()}
            # They may have been traced.
            numerics.check_bits(int(states[path]["bits"]), f"lsq: {path}")
        for path, (whole, scale, zero) in all_codes(codes, states).items():
            quantized = representations.Quantized(
                np.asarray(whole).astype(np.int8 if symmetric else np.uint8),
                np.asarray(scale),
                None if symmetric else np.asarray(zero).astype(np.uint8),
                int(states[path]["bits"]),
            )
            below = leaves[path]["w"]
            if isinstance(below, representations.Sparse):
                quantized = representations.sparse(below.mask, quantized)
            frozen[path] = quantized
        return frozen

    kind = "symmetric" if symmetric else "affine"
    return base.on_leaves(
        f"lsq(bits={bits}, {kind}, per {granularity})", pattern, encode, decode, freeze
    )
