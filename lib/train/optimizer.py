"""Optimisers: optax, by name, with a learning rate that warms up and decays."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import optax

from lib import errors, tree
from lib.transforms import KERNELS


def _decayed(params: Any) -> Any:
    """Marks what weight decay shrinks: kernels and what techniques made of them."""
    pattern = tree.compile_pattern(KERNELS)
    flat = tree.flatten(params)
    # Into the tree itself: a leaf that is not trained leaves an empty dict there.
    return tree.replace(params, {p: bool(pattern.search(p)) for p in flat})


def adamw(learning_rate: optax.Schedule, *, weight_decay: float, momentum: float):
    """Adam with decoupled weight decay on kernels (Loshchilov & Hutter, 1711.05101)."""
    return optax.adamw(
        learning_rate, b1=momentum, weight_decay=weight_decay, mask=_decayed
    )


def sgd(learning_rate: optax.Schedule, *, weight_decay: float, momentum: float):
    """Stochastic gradient descent with momentum; decay is added to the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_decayed),
        optax.sgd(learning_rate, momentum=momentum),
    )


def nesterov(learning_rate: optax.Schedule, *, weight_decay: float, momentum: float):
    """As `sgd`, with the gradient that momentum leads to (Sutskever 2013, eq. 3-4)."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_decayed),
        optax.sgd(learning_rate, momentum=momentum, nesterov=True),
    )


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "nesterov": nesterov}

# How the learning rate falls after the warm-up, as a function of the steps left and of
# {step: factor} of its drops.
DECAYS = {
    "constant": lambda peak, steps, drops: optax.constant_schedule(peak),
    "cosine": lambda peak, steps, drops: optax.cosine_decay_schedule(peak, steps),
    "linear": lambda peak, steps, drops: optax.linear_schedule(peak, 0.0, steps),
    "steps": lambda peak, steps, drops: optax.piecewise_constant_schedule(peak, drops),
}


def learning_rate(
    *,
    peak: float,
    decay: str,
    warmup: float,
    steps: int,
    drops: Sequence[float] = (),
    factor: float = 0.1,
):
    """Returns step -> learning rate.

    Args:
      peak: the highest rate, above 0.
      decay: a key of `DECAYS`, over the steps after the warm-up.
      warmup: share of the steps, in [0, 1), over which the rate rises from 0.
      steps: of the whole stage.
      drops: shares of the steps, rising from `warmup` to below 1, at which the rate of
        `decay="steps"` is multiplied by `factor`.
      factor: in (0, 1).
    """
    if not isinstance(peak, jax.core.Tracer) and not peak > 0:
        raise errors.UserError(f"learning_rate is above 0, got {peak}")
    if not 0 <= warmup < 1:
        raise errors.UserError(
            f"warmup is a share of the steps in [0, 1), got {warmup}"
        )
    fall = errors.lookup(DECAYS, decay, "decay of the learning rate")
    ordered = all(a < b for a, b in itertools.pairwise((warmup, *drops, 1)))
    if decay == "steps" and not (drops and ordered and 0 < factor < 1):
        raise errors.UserError(
            "decay 'steps' needs drops, shares of the steps that rise from above "
            "warmup to below 1, and a factor between 0 and 1, got drops "
            f"{tuple(drops)} and factor {factor}"
        )
    rise = round(warmup * steps)
    falls = {round(share * steps) - rise: factor for share in drops}
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, max(rise, 1)),
            fall(peak, max(steps - rise, 1), falls),
        ],
        [rise],
    )


def build(
    name: str,
    *,
    learning_rate: optax.Schedule,
    weight_decay: float,
    momentum: float,
    clip: float,
) -> optax.GradientTransformation:
    """Returns the optimiser called `name` in `OPTIMIZERS`.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate: step -> rate.
      weight_decay: at least 0; acts on kernels only.
      momentum: decay of the mean gradient (Adam's b1), in [0, 1).
      clip: largest global norm of the gradient; 0 for no limit.
    """
    make = errors.lookup(OPTIMIZERS, name, "optimizer")
    for key, value, valid in (
        ("weight_decay", weight_decay, weight_decay >= 0),
        ("momentum", momentum, 0 <= momentum < 1),
        ("clip", clip, clip >= 0),
    ):
        if not valid:
            raise errors.UserError(
                f"optimizer {name!r}: {key} is out of range: {value}"
            )
    optimizer = make(learning_rate, weight_decay=weight_decay, momentum=momentum)
    if clip:
        return optax.chain(optax.clip_by_global_norm(clip), optimizer)
    return optimizer
