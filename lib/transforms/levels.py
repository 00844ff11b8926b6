"""Weights of few bits on an uneven grid: the nearest of a format's levels, scaled.

`code`: the latent weights, `state`: the scales where they are means or searched for,
`decode`: `levels[code] * scale` (`formats.FORMATS`), straight through (Bengio et al.
2013, arXiv 1308.3432).
"""

import jax
import numpy as np

from lib import errors, formats, numerics, representations
from lib.transforms import base, level_scales
from lib.transforms import granularity as granularities


def levels(
    *,
    format: str,
    scale: str = "max",
    granularity: str = "channel",
    group: int = 0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Rounds weights to the nearest level of a format, times a scale.

    The derivative is 1 everywhere, so that weights beyond the largest level come back.
    Weights that are exactly 0 stay 0, also in a format without a zero (binary), where
    positions are stored beside the codes; no mean counts them.

    Args:
      format: a key of `formats.FORMATS`: "binary" (-1 and 1), "ternary" (TWN), "nf4"
        (QLoRA), the floats "e4m3", "e5m2" and "e2m1", "pow2_3" to "pow2_6" (INQ),
        "apot_3" to "apot_8" (APoT).
      scale: "max", where the largest magnitude is the largest level; "power", the power
        of two next to it (INQ); "mse", the share of it with the least squared error, at
        the cost of 32 roundings a step; of binary "mean", the mean magnitude
        (XNOR-Net, arXiv 1603.05279, eq. 6); of ternary "twn", its threshold and scale
        (arXiv 1605.04711, eq. 5 and 6). The last three are found after each step.
      granularity: one scale a "tensor", an output "channel" (the last axis), or a
        "group" of `group` neighbours along the contraction axis of each channel.
      group: length of a group; 0 unless granularity is "group".
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: an unknown format, scale or granularity, a scale of another format, a
        group without granularity "group"; at `encode`, a pattern that matches nothing,
        a leaf that groups do not divide, or a float16 leaf.
    """
    table = errors.lookup(formats.FORMATS, format, "format")
    fit = errors.lookup(level_scales.SCALES, scale, "scale of levels")
    only = level_scales.ONLY.get(scale, format)
    if only != format:
        raise errors.UserError(
            f"levels: scale {scale!r} is of format {only!r}, got {format!r}"
        )
    granularities.check(granularity, group, "levels")
    exact = scale in level_scales.EXACT

    def seen(w):
        return granularities.seen(w, granularity, group)

    def found(w, state):
        return fit(*seen(w), table) if exact else state

    def states_of(weights):
        return {p: () if exact else fit(*seen(w), table) for p, w in weights.items()}

    def encode(weights):
        for path, w in weights.items():
            granularities.check_leaf(path, w, group, "levels")
        return weights, states_of(weights)

    def decode_leaf(w, state):
        fixed = jax.lax.stop_gradient(w)
        rounded = level_scales.decoded(seen(fixed)[0], found(fixed, state), table)
        return numerics.straight_through(w, rounded.reshape(w.shape))

    def decode(codes, states):
        return {p: decode_leaf(w, states[p]) for p, w in codes.items()}

    def update(codes, states, signals):
        del states, signals
        return states_of(codes)

    @jax.jit
    def all_codes(weights, states):
        """Returns {path: (codes, scale)}."""
        coded = {}
        for path, w in weights.items():
            held = found(w, states[path])
            codes = level_scales.codes(seen(w)[0], held, table).reshape(w.shape)
            coded[path] = codes, held[0].astype(w.dtype)
        return coded

    def freeze(leaves, states):
        weights = {p: representations.materialize(x) for p, x in leaves.items()}
        frozen = {}
        for path, (codes, scales) in all_codes(weights, states).items():
            rep = representations.Levels(
                np.asarray(codes).astype(np.uint8), np.asarray(scales), format, group
            )
            frozen[path] = over_zeros(rep, weights[path], leaves[path])
        return frozen

    per = f"group {group}" if group else granularity
    how = f"levels({format}, scale {scale}, per {per})"
    return base.on_leaves(
        how, pattern, encode, decode, freeze, None if exact else update
    )


def over_zeros(
    rep: representations.Levels,
    weights: np.ndarray,
    below: representations.Representation,
) -> representations.Representation:
    """Returns `rep` with the zeros that were there before it.

    Args:
      rep: the weights in levels.
      weights: before they were rounded.
      below: what they came from.
    """
    mask = np.ones(weights.shape, bool)
    if isinstance(below, representations.Sparse):
        mask = np.asarray(below.mask)
    if 0 not in formats.FORMATS[rep.format]:
        mask = mask & (weights != 0)
    return rep if mask.all() else representations.sparse(mask, rep)
