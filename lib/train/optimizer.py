"""Optimisers: optax, by name, with a learning rate that warms up and decays."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import optax

from lib import errors, tree
from lib.transforms import KERNELS

# Trained beside a kernel's weights, and no weights: the steps of `lsq`.
_STEPS = r"(^|/)kernel/(.*/)?step$"


def _decayed(params: Any) -> Any:
    """Marks what weight decay shrinks: kernels and what techniques made of them."""
    taken, left = tree.compile_pattern(KERNELS), tree.compile_pattern(_STEPS)
    flat = tree.flatten(params)
    marks = {p: bool(taken.search(p)) and not left.search(p) for p in flat}
    # Into the tree itself: a leaf that is not trained leaves an empty dict there.
    return tree.replace(params, marks)


def adamw(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule,
    momentum: float,
):
    """Adam with decoupled weight decay on kernels (Loshchilov & Hutter, 1711.05101)."""
    return optax.adamw(
        learning_rate, b1=momentum, weight_decay=weight_decay, mask=_decayed
    )


def sgd(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule,
    momentum: float,
    nesterov: bool = False,
):
    """Stochastic gradient descent with momentum; decay is added to the gradient.

    With `nesterov` at the place that momentum leads to (Sutskever 2013, eq. 3-4).
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_decayed),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    )


OPTIMIZERS = {
    "adamw": adamw,
    "sgd": sgd,
    "nesterov": functools.partial(sgd, nesterov=True),
}

# How the learning rate falls after the warm-up, as a function of the steps left, of
# {step: factor} of its drops and of the factor.
DECAYS = {
    "constant": lambda peak, *_: optax.constant_schedule(peak),
    "cosine": lambda peak, steps, *_: optax.cosine_decay_schedule(peak, steps),
    "exponential": lambda peak, steps, _, factor: optax.exponential_decay(
        peak, steps, factor
    ),
    "linear": lambda peak, steps, *_: optax.linear_schedule(peak, 0.0, steps),
    "steps": lambda peak, _, drops, __: optax.piecewise_constant_schedule(peak, drops),
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
      factor: in (0, 1); with `decay="exponential"` the last rate is it times the peak.
    """
    if not isinstance(peak, jax.core.Tracer) and not peak > 0:
        raise errors.UserError(f"learning_rate is above 0, got {peak}")
    if not 0 <= warmup < 1:
        raise errors.UserError(
            f"warmup is a share of the steps in [0, 1), got {warmup}"
        )
    fall = errors.lookup(DECAYS, decay, "decay of the learning rate")
    if decay == "exponential" and not 0 < factor < 1:
        raise errors.UserError(
            f"decay 'exponential' needs a factor between 0 and 1, got {factor}"
        )
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
            fall(peak, max(steps - rise, 1), falls, factor),
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
    growing: int = 0,
) -> optax.GradientTransformation:
    """Returns the optimiser called `name` in `OPTIMIZERS`.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate: step -> rate.
      weight_decay: at least 0; acts on kernels only; may be traced.
      momentum: decay of the mean gradient (Adam's b1), in [0, 1); may be traced.
      clip: largest global norm of the gradient; 0 for no limit.
      growing: steps over which the decay rises from 0, so that weights part by how
        much the loss holds on to them (Wang et al. 2021, arXiv 2012.09243, section
        3.2); 0: it is there from the start.
    """
    make = errors.lookup(OPTIMIZERS, name, "optimizer")
    for key, value, below in (
        ("weight_decay", weight_decay, math.inf),
        ("momentum", momentum, 1),
        ("clip", clip, math.inf),
    ):
        # Who traces a number has looked at it before.
        if not isinstance(value, jax.core.Tracer) and not 0 <= value < below:
            raise errors.UserError(
                f"optimizer {name!r}: {key} is out of range: {value}"
            )
    if growing:
        weight_decay = optax.linear_schedule(0.0, weight_decay, growing)
    optimizer = make(learning_rate, weight_decay=weight_decay, momentum=momentum)
    if clip:
        return optax.chain(optax.clip_by_global_norm(clip), optimizer)
    return optimizer
