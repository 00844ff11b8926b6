"""Scores of channels, neurons and heads by name, on a stage's weights and batches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lib import shrink
from lib.shrink import curves, scores


def _by_norm(order: int, pattern: str = ".", roles: tuple = ("out",)) -> Callable:
    def score(scene, f, groups, weights, settings):
        return scores.norm(groups, weights, order=order, pattern=pattern, roles=roles)

    return score


def _by_loss(which: int) -> Callable:
    def score(scene, f, groups, weights, settings):
        def loss(weights, batch):
            return scene.loss(weights["params"], batch)

        found = scene.batches(settings.batches)
        return scores.first_order(groups, loss, weights, found)[which]

    return score


def _by_activation(which: int) -> Callable:
    def score(scene, f, groups, weights, settings):
        found = [(batch["input"],) for batch in scene.batches(settings.batches)]
        return scores.activations(f, groups, weights, found)[which]

    return score


# `shrink.scope` -> that of `shrink.by_fraction`, given scores as `of_all` returns them.
SCOPES = {"group": "group", "global": "global", "curves": "global"}


def of_all(scene, f, groups, found, weights, settings) -> scores.Scores:
    """Returns scores that compare units of different groups, as `scope` says.

    "curves" runs the network about eight times a group on `settings.batches` batches.

    Args:
      scene: of the preparation.
      f: its logits.
      groups: of the program.
      found: scores that compare units of one group.
      weights: {"params", "variables"}.
      settings: of `shrink`.
    """
    if settings.scope == "group":
        return found
    if settings.scope == "global":
        return scores.normalised(found)
    images = [batch["input"] for batch in scene.batches(settings.batches)]
    run = jax.jit(f)
    whole = [run(weights, x) for x in images]

    def moved(name: str, count: int) -> float:
        """Returns the mean squared change of the logits without that many units."""
        gone = np.argsort(found[name], kind="stable")[:count]
        masked = shrink.mask(shrink.make(groups, {name: gone}), weights)
        pairs = zip(images, whole, strict=True)
        return float(np.mean([jnp.mean((run(masked, x) - y) ** 2) for x, y in pairs]))

    costs = {}
    for group in groups.groups:
        _, *some = curves.counts(group.size)  # without none of them nothing changes
        costs[group.name] = [0.0, *(moved(group.name, n) for n in some)]
    return curves.by_curve(groups, found, costs)


# name -> (scene, its logits, groups, weights, settings) -> scores; the least go.
SCORES: dict[str, Callable[..., scores.Scores]] = {
    "l1": _by_norm(1),
    "l2": _by_norm(2),
    "scale": _by_norm(1, r"(^|/)scale$", ("",)),
    "taylor": _by_loss(0),
    "fisher": _by_loss(1),
    "activation": _by_activation(0),
    "apoz": _by_activation(1),
    "random": lambda scene, f, groups, weights, settings: scores.random(
        groups, settings.seed
    ),
}
