"""Penalties on the weights of the leaves that rules pick.

All are sums, not means, so that a weight of 5e-4 means what it means in papers and in
Caffe: with `l2` it adds `5e-4 * w` to the gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lib import errors, tree
from lib.objectives import checks

Term = Callable[..., jax.Array]  # (outputs, batch, params, teacher) -> scalar
Rules = str | tuple[str, ...]

KERNELS = tree.KERNELS


def _absolute(w: jax.Array) -> jax.Array:
    # jnp.abs has slope 1 at 0 and would move the weights that it brought there.
    return jnp.sum(w * jnp.sign(w))


def _half_square(w: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(jnp.square(w))


def penalty(measure: Callable[[jax.Array], jax.Array], pattern: Rules) -> Term:
    """Returns the term that adds up `measure` over the leaves that `pattern` picks."""
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    sequence = isinstance(patterns, list | tuple) and len(patterns) > 0
    if not sequence or not all(isinstance(p, str) for p in patterns):
        raise errors.UserError(
            "penalty pattern: expected a regular expression or a tuple of them, "
            f"got {pattern!r}"
        )
    for p in patterns:
        tree.compile_pattern(p)

    def term(outputs: Any, batch: Any, params: Any, teacher: Any) -> jax.Array:
        leaves = tree.flatten(params)
        # In the order of the paths: float sums depend on the order.
        picked = sorted(tree.match(patterns, leaves))
        return sum(measure(leaves[path]) for path in picked)

    return term


def l1(*, pattern: Rules = KERNELS) -> Term:
    """Returns the term `sum |w|` (Tibshirani 1996, the lasso); the slope at 0 is 0.

    Args:
      pattern: regular expression, or a tuple of them, searched for in `a/b/kernel`
        paths; one that matches nothing raises a `UserError` when the term is traced.
    """
    return penalty(_absolute, pattern)


def l2(*, pattern: Rules = KERNELS) -> Term:
    """Returns the term `sum w**2 / 2`, whose gradient is w.

    Args:
      pattern: as in `l1`.
    """
    return penalty(_half_square, pattern)


def elastic_net(*, l1_ratio: float | jax.Array, pattern: Rules = KERNELS) -> Term:
    """Returns the term `r sum |w| + (1 - r) sum w**2 / 2`.

    The parametrisation is scikit-learn's; the idea Zou & Hastie's (2005,
    doi 10.1111/j.1467-9868.2005.00503.x).

    Args:
      l1_ratio: r, in [0, 1]: 1 gives `l1`, 0 gives `l2`. May be traced.
      pattern: as in `l1`.
    """
    checks.number("elastic_net.l1_ratio", l1_ratio, low=0, high=1)

    def mixed(w: jax.Array) -> jax.Array:
        return l1_ratio * _absolute(w) + (1 - l1_ratio) * _half_square(w)

    return penalty(mixed, pattern)
