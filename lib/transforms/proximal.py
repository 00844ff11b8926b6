"""Proximal steps: after each step weights shrink by a fixed amount, and stop at 0.

`code`: the weights, `state`: the threshold of the step just taken, `decode`: the
weights as they are. The lasso's subgradient only comes near 0; its proximal operator
gets there, so the zeros are exact (ISTA: Daubechies et al. 2004, math/0307152).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations, schedules
from lib.transforms import base, grouping


def shrink(w: jax.Array, threshold: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the proximal operator of the lasso or the group lasso at `w`.

    Of single weights `sign(w) max(|w| - t, 0)`, of groups
    `w_g max(1 - t sqrt(size) / ||w_g||, 0)` (Parikh & Boyd 2014, Proximal Algorithms,
    eqs. 6.9 and 6.15).

    Args:
      w: float array.
      threshold: t, float32 scalar, at least 0; 0 is the identity.
      axes: along which the weights of a group lie; () shrinks each by itself.
    """
    wide = w.astype(jnp.float32)
    zero = jnp.zeros((), jnp.float32)
    # Selects, not products with 0: -w * 0 would leave a negative zero.
    if not axes:
        smaller = wide - jnp.sign(wide) * threshold
        shrunk = jnp.where(jnp.abs(wide) > threshold, smaller, zero)
    else:
        bound = threshold * math.sqrt(np.prod([w.shape[i] for i in axes]))
        norm = jnp.sqrt(jnp.sum(jnp.square(wide), axis=axes, keepdims=True))
        alive = norm > bound
        factor = 1 - bound / jnp.where(alive, norm, 1)
        shrunk = jnp.where(alive, wide * factor, zero)
    return jnp.where(threshold > 0, shrunk, wide).astype(w.dtype)


def proximal(
    *,
    strength: schedules.Strength,
    learning_rate: schedules.Strength,
    groups: str,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Shrinks weights after each step by `learning_rate * strength`; small ones are 0.

    With plain SGD of the same learning rate this is proximal gradient descent on
    `loss + strength * sum |w|`, or on the group lasso's
    `loss + strength * sum_g sqrt(size of g) ||w_g||` (Yuan & Lin 2006; of channels, Wen
    et al. 2016, arXiv 1608.03665). Momentum and adaptive optimisers take steps of
    another size, and `learning_rate * strength` is then just the amount by which a
    weight shrinks in a step. Where the optimiser's rate falls this one should fall with
    it, or at the end weights shrink without the loss holding against it.

    A zero is not fixed: the gradient of a later step may move the weight again, beyond
    the threshold. A moving average of the weights has no zeros; train without one.

    Args:
      strength: of the penalty, at least 0; a number, a schedule, or a traced value. 0
        is the identity.
      learning_rate: the step size that the penalty is multiplied with, above 0; a
        number, a schedule, or a traced value. It is this technique's own: nothing
        tells it the optimiser's.
      groups: "element", each weight by itself; "out" or "in", an output (the last
        axis) or input channel (the axis before it) at a time.
      pattern: regular expression over paths of the leaves to shrink.

    Raises:
      UserError: a strength below 0, a learning rate not above it, unknown groups; at
        `encode`, a pattern that matches nothing, or a leaf without input channels.
    """
    errors.lookup(grouping.GROUPS, groups, "kind of group")
    for name, value in (("strength", strength), ("learning_rate", learning_rate)):
        known = not (callable(value) or isinstance(value, jax.core.Tracer))
        least = "at least 0" if name == "strength" else "above 0"
        if known and not (value >= 0 if name == "strength" else value > 0):
            raise errors.UserError(f"proximal: {name} is {least}, got {value}")

    def threshold(step) -> jax.Array:
        rate = jnp.asarray(schedules.at(learning_rate, step), jnp.float32)
        return rate * jnp.asarray(schedules.at(strength, step), jnp.float32)

    def encode(weights):
        for path, w in weights.items():
            grouping.shared_axes(groups, path, w.shape)
        return weights, {path: threshold(0) for path in weights}

    def decode(codes, states):
        del states
        return codes

    def update(codes, states, signals):
        del codes
        return {path: threshold(signals.step) for path in states}

    def renew(codes, before, after):
        del before
        shrunk = {
            p: shrink(w, after[p], grouping.shared_axes(groups, p, w.shape))
            for p, w in codes.items()
        }
        return shrunk, {}  # the optimiser goes on: a zero is a value like any other

    def freeze(leaves, states):
        del states
        frozen = {}
        for path, rep in leaves.items():
            w = representations.materialize(rep)
            # A negative zero counts as a value, as the mask would make it positive.
            frozen[path] = representations.sparse((w != 0) | np.signbit(w), rep)
        return frozen

    kind = "schedule" if callable(strength) else strength
    moving = callable(strength) or callable(learning_rate)
    return base.on_leaves(
        f"proximal(strength={kind}, {groups})",
        pattern,
        encode,
        decode,
        freeze,
        update if moving else None,
        renew=renew,
    )
