"""The group lasso: a penalty under which whole channels die together."""

import math

import jax
import jax.numpy as jnp

from lib import errors
from lib.objectives import penalties

# What one group is -> for each kind of group, the axis that counts its groups.
GROUPS = {"out": (-1,), "in": (-2,), "both": (-1, -2)}


def _norms(w: jax.Array, axis: int) -> jax.Array:
    """Returns `sqrt(group size) * sum_g ||w_g||`, groups along `axis`."""
    if w.ndim < -axis:
        raise errors.UserError(
            f"group_lasso: a leaf of shape {w.shape} has no input channels; "
            "groups='out' takes it, or a pattern that leaves it out"
        )
    others = tuple(i for i in range(w.ndim) if i != w.ndim + axis)
    squares = jnp.sum(jnp.square(w.astype(jnp.float32)), axis=others)
    # The slope of the root at 0 is infinite, and that of the norm is taken as 0.
    alive = squares > 0
    norms = jnp.where(alive, jnp.sqrt(jnp.where(alive, squares, 1)), 0)
    return math.sqrt(w.size // w.shape[axis]) * jnp.sum(norms)


def group_lasso(
    *, groups: str, pattern: penalties.Rules = penalties.KERNELS
) -> penalties.Term:
    """Returns the term `sum_g sqrt(size of g) * ||w_g||_2` (Yuan & Lin 2006, eq. 2.1).

    Over channels of a network it is structured sparsity learning (Wen et al. 2016,
    arXiv 1608.03665, eq. 4). The slope at a group of zeros is 0. A subgradient brings
    groups close to 0, not onto it: the technique `proximal` solves the same problem
    with exact zeros.

    Args:
      groups: "out", one group an output channel (the last axis), "in", one an input
        channel (the axis before it), or "both", the sum of the two.
      pattern: regular expression, or a tuple of them, searched for in `a/b/kernel`
        paths; one that matches nothing raises a `UserError` when the term is traced.

    Raises:
      UserError: unknown groups; when the term is traced, a leaf of one axis that has
        no input channels.
    """
    axes = errors.lookup(GROUPS, groups, "kind of group")

    def measure(w: jax.Array) -> jax.Array:
        return sum(_norms(w, axis) for axis in axes)

    return penalties.penalty(measure, pattern)
