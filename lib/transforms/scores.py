"""What a weight is worth: scores by which pruning ranks, the higher the longer kept.

To add one: functions of a single leaf, and a line in `SCORES`. Scores that follow the
gradients keep a statistic, which starts before the first step and is updated after
each one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Statistic = Any  # a float32 array of the leaf's shape; () for none


class Score(NamedTuple):
    """One way to rank the weights of a leaf; all functions are pure and jit-able.

    Attributes:
      rank: (statistic, weight, key) -> float scores of the weight's shape, higher =
        keep. The key is the leaf's own and the same at every call.
      start: weight -> statistic.
      update: (statistic, weight, gradient, decay) -> statistic, after each step; the
        gradient is dense, at removed weights too. None where no gradient is needed.
    """

    rank: Callable[[Statistic, jax.Array, jax.Array], jax.Array]
    start: Callable[[jax.Array], Statistic] = lambda w: ()
    update: Callable[[Statistic, jax.Array, jax.Array, float], Statistic] | None = None


def _zeros(w: jax.Array) -> jax.Array:
    return jnp.zeros(w.shape, jnp.float32)


def _float(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(x.astype(jnp.float32) for x in arrays)


def _average(statistic: jax.Array, signal: jax.Array, decay: float) -> jax.Array:
    """Returns the moving average; the bias of its start is the same for all weights."""
    return decay * statistic + (1 - decay) * signal


def _taylor(statistic, w, g, decay):
    w, g = _float(w, g)
    return _average(statistic, jnp.abs(w * g), decay)


def _movement(statistic, w, g, decay):
    del decay
    w, g = _float(w, g)
    return statistic - w * g


def _fisher(statistic, w, g, decay):
    del w
    (g,) = _float(g)
    return _average(statistic, g * g, decay)


# |w|: Han et al. 2015, arXiv 1506.02626.
magnitude = Score(rank=lambda statistic, w, key: jnp.abs(w))

# The same random order at every update: what has gone does not come back.
random = Score(rank=lambda statistic, w, key: jax.random.uniform(key, w.shape))

# Moving average of |w * dL/dw|, the first order of the loss without the weight:
# Molchanov et al. 2016, arXiv 1611.06440, eq. 7; of single weights 2019, 1906.10771.
taylor = Score(lambda statistic, w, key: statistic, _zeros, _taylor)

# S = -sum over steps of w * dL/dw: weights that move away from zero stay. Sanh et al.
# 2020, arXiv 2005.07683, section 4. Its learning rate changes no order, so none here.
movement = Score(lambda statistic, w, key: statistic, _zeros, _movement)

# h * w^2 / 2 with the moving average of (dL/dw)^2 for the curvature h: the saliency of
# LeCun et al. 1990 ("Optimal Brain Damage") over the empirical Fisher diagonal.
fisher = Score(
    lambda statistic, w, key: statistic * jnp.square(w.astype(jnp.float32)) / 2,
    _zeros,
    _fisher,
)

# Scores that were computed beforehand: `prune` lays them down as the statistic.
given = Score(rank=lambda statistic, w, key: statistic)

SCORES = {
    "magnitude": magnitude,
    "random": random,
    "taylor": taylor,
    "movement": movement,
    "fisher": fisher,
    "given": given,
}
