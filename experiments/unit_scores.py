"""Scores of channels, neurons and heads by name, on a stage's weights and batches."""

from collections.abc import Callable

from lib.shrink import scores


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
