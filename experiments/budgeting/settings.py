"""Looks at a budget before any compute: its limits, stages, options and cuts."""

from typing import Any

import jax

from experiments import chains, check, sensitivity, shrinking, unit_scores
from experiments.budgeting import options, stages
from lib import errors, shrink, transforms, tree
from lib.data import dataset


def limits(config: Any) -> None:
    """Raises a `UserError` for what is wrong whatever the data are."""
    settings = config.budget
    for name in (settings.dense, settings.cut, settings.stage):
        errors.lookup(dict.fromkeys(config.stages), name, "stage of a budget")
    check.settings(config)
    least = min(settings.bytes, settings.milliseconds, settings.points)
    if least < 0 or settings.attempts < 1:
        raise errors.UserError(
            "budget: expected bytes, milliseconds and points from 0 and attempts from "
            f"1, got {settings.bytes}, {settings.milliseconds}, {settings.points} and "
            f"{settings.attempts}"
        )
    if not settings.bytes and not settings.milliseconds:
        raise errors.UserError(
            "budget: bytes and milliseconds are both 0, which is no limit; give one"
        )
    if not settings.growth > 1:
        raise errors.UserError(f"budget.growth is above 1, got {settings.growth}")
    for name in (settings.cut, settings.stage):
        own = config[name]
        if own.start != settings.dense or own.transforms:
            raise errors.UserError(
                f"budget: {name} starts from {settings.dense!r} and its transforms are "
                f"(), as the budget chooses them, got {own.start!r} and "
                f"{tuple(own.transforms)}"
            )
    if "shrink" in config[settings.stage].prepare:
        raise errors.UserError(
            f"budget: {settings.cut} is the stage that removes channels; take 'shrink' "
            f"out of {settings.stage}.prepare"
        )
    sensitivity.check(options.settings_of(config))
    if "clusters" in settings.sensitivity.techniques and config.share.scope != "leaf":
        raise errors.UserError(
            "budget: each layer has values of its own, so share.scope is 'leaf', got "
            f"{config.share.scope!r}"
        )
    own = config.factorize
    if "rank" in settings.sensitivity.techniques and (own.weighting or own.residual):
        raise errors.UserError(
            "budget: curves of rank are those of the plain SVD; clear "
            "factorize.weighting and factorize.residual"
        )
    if settings.milliseconds:
        _channels(config)


def _channels(config: Any) -> None:
    """Raises a `UserError` for shares of channels that `shrink` cannot cut."""
    settings, own = config.budget, config.shrink
    shares = settings.channels
    if sorted({*shares}) != [*shares] or not all(0 < x < 1 for x in shares):
        raise errors.UserError(
            "budget.channels are shares above 0 and below 1, the least first, got "
            f"{tuple(shares)}"
        )
    if not shares:
        raise errors.UserError(
            "budget.channels is empty, but milliseconds are met by removing channels"
        )
    if "shrink" not in config[settings.cut].prepare:
        raise errors.UserError(
            f"budget: {settings.cut}.prepare removes channels, so 'shrink' is in it, "
            f"got {tuple(config[settings.cut].prepare)}"
        )
    if own.rules or own.budget:
        raise errors.UserError(
            "budget: budget.channels says which share is removed; clear shrink.rules "
            "and shrink.budget"
        )
    shrinking.check(own)
    for share in shares:
        scope = unit_scores.SCOPES[own.scope]
        shrink.check(share, scope, shrink.Limits(own.multiple, own.floor))


def fits(config: Any, data: dataset.Dataset) -> None:
    """Raises a `UserError` for stages or options that do not fit the model.

    Each kind of option is aimed at every layer of the dense stage that may have it, the
    last of the kind at each; nothing is computed.
    """
    settings = config.budget
    first, *_ = check.stages(stages.needed(config), data)
    if not settings.bytes:
        return
    shapes = {
        row.path: jax.ShapeDtypeStruct(row.shape, row.dtype) for row in first.plan
    }
    tried = options.settings_of(config)
    layers = sensitivity.matched(shapes, tried)
    kinds: dict[tuple[str, ...], dict[str, options.Strengths]] = {}
    for path, w in layers.items():
        for one in options.offered(tried, w):
            plain = {k: value for k, (value, _) in one.items()}
            kinds.setdefault(tuple(plain), {})[path] = plain
    for taken in kinds.values():
        now = stages.chosen(config, 0, settings.stage, taken)
        chain = chains.build(now, now[settings.stage])
        transforms.plan(chain.transform, tree.unflatten(shapes))
