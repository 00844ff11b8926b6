"""AdaRound: each weight learns whether it is rounded up or down.

`code`: the rounded weights, on their grid already; `state`: see `fixed_grid`.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lib import errors
from lib.transforms import base, fed, fixed_grid

# The ends to which the sigmoid is stretched before it is clipped (eq. 23).
_GAMMA, _ZETA = -0.1, 1.1
# Share of the steps before weights are pushed to a side, as in the authors' code.
_FREE = 0.2


class Push(NamedTuple):
    """How weights are pushed to a side; numbers that may be traced.

    Attributes:
      steps: of Adam.
      learning_rate: of Adam.
      strength: of f_reg.
      first: its exponent as it begins.
      last: its exponent in the end.
    """

    steps: int
    learning_rate: float
    strength: float
    first: float
    last: float


def rise(v: jax.Array) -> jax.Array:
    """Returns h(v) of eq. 23, in [0, 1]: how far a weight is rounded up."""
    return jnp.clip(jax.nn.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA, 0, 1)


def start(rest: jax.Array) -> jax.Array:
    """Returns the v of which `rise(v)` is `rest`, in [0, 1]."""
    return -jnp.log((_ZETA - _GAMMA) / (rest - _GAMMA) - 1)


def _product(gram: jax.Array, change: jax.Array) -> jax.Array:
    return jnp.matmul(gram, change, precision=lax.Precision.HIGHEST)


def _error(gram: jax.Array, change: jax.Array) -> jax.Array:
    """Returns `||x change||^2` of each output."""
    return jnp.sum(change * _product(gram, change), axis=0)


def learn(
    w: jax.Array,
    gram: jax.Array,
    scale: jax.Array,
    low: jax.Array,
    high: jax.Array,
    push: Push,
) -> jax.Array:
    """Returns the weights rounded as learned; outputs do not meet, each learns alone.

    Args:
      w: float32 `[n, outputs]`. A weight that is 0 stays 0.
      gram: float32 `[n, n]`.
      scale: the grid's, `[n, outputs]`.
      low: the least multiple of the scale, `[n, outputs]`.
      high: the greatest.
      push: how long and how hard weights are pushed to a side.
    """
    mask = w != 0
    n = len(w)
    # Of an output and a gram only the ratios matter: their scales go before squares of
    # them overflow.
    mean = jnp.mean(jnp.diagonal(gram))
    gram = gram / jnp.where(mean > 0, mean, 1)
    unit = scale / jnp.max(scale, axis=0, keepdims=True)
    places = w / scale
    below = jnp.floor(places)

    def offset(up):
        return jnp.where(mask, jnp.clip(below + up, low, high), 0)

    def change(offset):
        return (offset - places) * unit

    nearest = jnp.where(mask, jnp.clip(jnp.round(places), low, high), 0)
    least = _error(gram, change(nearest))
    per_output = n / jnp.where(least > 0, least, 1)

    def pushed(v, exponent):
        """The regulariser f_reg of eq. 24."""
        off = jnp.abs(2 * rise(v) - 1)
        return jnp.sum(jnp.where(mask, 1 - off**exponent, 0))

    optimizer = optax.adam(push.learning_rate)

    def turn(step, carried):
        v, slots = carried
        off, pull = jax.vjp(lambda v: change(offset(rise(v))), v)
        # The derivative of `_error`, whose gram is symmetric, in one product.
        (grad,) = pull(2 * _product(gram, off) * per_output[None, :])
        done = (step / push.steps - _FREE) / (1 - _FREE)
        exponent = push.first + (push.last - push.first) * jnp.clip(done, 0, 1)
        weight = jnp.where(done > 0, push.strength, 0)
        grad = grad + weight * jax.grad(pushed)(v, exponent)
        updates, slots = optimizer.update(grad, slots)
        return v + updates, slots

    v = start(places - below)
    v, _ = lax.fori_loop(0, push.steps, turn, (v, optimizer.init(v)))
    found = offset((rise(v) >= 0.5).astype(w.dtype))
    better = _error(gram, change(found)) < least
    found = jnp.where(better[None, :], found, nearest)
    return jnp.where(found == 0, 0, found * scale)  # a code knows no -0.0


@functools.partial(jax.jit, static_argnames=("grids", "view"))
def _leaf(w, gram, bits, push, *, grids, view):
    """Returns a leaf on its grid, and its state, compiled once for equal shapes."""
    grids = grids._replace(bits=bits)
    grid = grids.of(w)
    one = functools.partial(learn, push=push)
    for _ in gram.shape[:-2]:
        one = jax.vmap(one)
    found = one(
        view.split(w).astype(jnp.float32),
        gram,
        view.split(grids.spread(grid.scale, w)),
        view.split(grids.spread(grid.low - grid.zero_point, w)),
        view.split(grids.spread(grid.high - grid.zero_point, w)),
    )
    found = view.join(found).astype(w.dtype)
    return found, grids.state(w, grid.scale, grid.zero_point)


def adaround(
    *,
    bits: int | jax.Array,
    grams: Mapping[str, Any],
    symmetric: bool = True,
    granularity: str = "channel",
    group: int = 0,
    steps: int = 1000,
    learning_rate: float = 0.03,
    strength: float = 10.0,
    beta: tuple[float, float] = (20.0, 2.0),
    range: str = "mse",
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Rounds each weight up or down, at once, for good, as the layer's output asks.

    Nagel et al. 2020, arXiv 2004.10568: `w' = scale * clip(floor(w / scale) + h(v))`
    (eq. 22) with the v of least `||x w - x w'||^2 + strength * f_reg(v)` (eq. 21),
    where f_reg pushes every h to 0 or 1 (eq. 24), the harder the lower its exponent;
    `h >= 0.5` is up in the end. An output that would lose by it is rounded to the
    nearest. A weight that is 0 stays 0.

    The error is `tr(dw^T (x^T x) dw)`, the layer's own (section 3.2, eq. 13 to 20), so
    that grams stand for the data, dense and convolution kernels alike. Left out is the
    asymmetric form (eq. 25): inputs as the layers before leave them once rounded, and
    the activation behind the layer.

    Args:
      bits: 2 to 8; may be traced.
      grams: {path: `x.T @ x`} of the inputs of every leaf that is taken, as for `gptq`.
      symmetric: zero point 0; else an affine grid.
      granularity: one scale a "tensor", an output "channel" (the last axis), or a
        "group" of `group` neighbours along the contraction of each channel.
      group: length of a group; 0 unless granularity is "group".
      steps: of Adam, at least 1: each is a product `[n, n] @ [n, outputs]` for a leaf
        of n inputs.
      learning_rate: of Adam, above 0.
      strength: of f_reg, not negative. The error of an output counts as n when all
        its weights are rounded to the nearest, so one strength fits every layer.
      beta: f_reg's exponent, from the first to the last; it begins to count after a
        fifth of the steps.
      range: "max" covers every weight; "mse" the share of least squared error
        (`ranges.least_error`), as in the paper.
      pattern: regular expression over paths of the leaves to round.

    Raises:
      UserError: an argument out of range; at `encode`, a pattern that matches nothing,
        a gram that is missing or does not fit, a leaf that groups do not divide, or a
        float16 leaf.
    """
    grids = fixed_grid.Grids("adaround", bits, symmetric, granularity, group, range)
    grids.check()
    for name, value, sound, expected in (
        ("steps", steps, steps >= 1, "at least 1"),
        ("learning_rate", learning_rate, learning_rate > 0, "above 0"),
        ("strength", strength, strength >= 0, "not negative"),
        ("beta", beta, len(beta) == 2 and min(beta) > 1, "two numbers above 1"),
    ):
        if not sound:
            raise errors.UserError(f"adaround: {name} is {expected}, got {value}")

    def leaf(path: str, w: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        gram, view = fed.gram("adaround", path, w, grams)
        return _leaf(
            w,
            gram,
            jnp.asarray(bits, jnp.int32),
            Push(steps, learning_rate, strength, *beta),
            grids=grids._replace(bits=0),
            view=view,
        )

    how = grids.how(f"{steps} steps")
    return fixed_grid.transform(grids, how, pattern, leaf)
