"""Channels, neurons, heads and branches removed from a stage's weights, with proof."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import scoring, unit_scores
from lib import errors, shrink, tree
from lib.deploy import measure
from lib.program import Change

NONE = shrink.Plan()
PROOFS = 2  # batches of random images that a cut is proved on
BUDGETS = ("", "macs", "latency")


class Made(NamedTuple):
    """What a preparation makes.

    Attributes:
      weights: {"params", "variables"}.
      changes: what became of each place that it looked at.
      plan: what it cut off the weights.
      metrics: of the stage, to be reported.
      cut: {"name", "size", "kept", "members"} of each group that could be cut.
    """

    weights: dict[str, Any]
    changes: list[Change]
    plan: shrink.Plan = NONE
    metrics: dict[str, float] = {}
    cut: tuple[dict[str, Any], ...] = ()


def resized(apply: Callable[..., Any], plan: shrink.Plan) -> Callable[..., Any]:
    """Returns a model's `apply` for weights that a plan has cut."""
    if not plan.cuts and not plan.dropped:
        return apply

    def whole(weights, images, key, *, train):
        params, variables = weights["params"], weights["variables"]
        return apply(params, variables, images, train=train, key=key)

    small = shrink.resize(whole, plan)

    def resized_apply(params, variables, images, *, train, key):
        weights = {"params": params, "variables": variables}
        outputs, new = small(weights, images, key, train=train)
        # The module knows of statistics whose branch was dropped; nobody else does.
        left, found = tree.flatten(variables), tree.flatten(new)
        return outputs, tree.replace(variables, {path: found[path] for path in left})

    return resized_apply


def logits(network: Any) -> Callable[..., jax.Array]:
    """Returns (weights, images) -> logits, in evaluation and in float."""

    def run(weights, images):
        return network.apply(
            weights["params"], weights["variables"], images, train=False, key=None
        )[0][0]

    return run


def check(settings: Any) -> None:
    """Raises a `UserError` for settings of `shrink` that are wrong anywhere."""
    errors.lookup(unit_scores.SCORES, settings.score, "score of units")
    errors.lookup(dict.fromkeys(BUDGETS), settings.budget, "budget of shrink")
    for rule in settings.rules:
        pair = not isinstance(rule, str) and isinstance(rule, Sequence)
        if not (pair and len(rule) == 2 and isinstance(rule[0], str)) or not (
            isinstance(rule[1], int | float)
        ):
            raise errors.UserError(
                f"shrink.rules is pairs (pattern, fraction), got {rule!r}"
            )
        tree.compile_pattern(rule[0])
    scope = errors.lookup(unit_scores.SCOPES, settings.scope, "scope of shrink")
    limits = shrink.Limits(settings.multiple, settings.floor)
    for _, fraction in rules(settings):
        shrink.check(fraction, scope, limits)
    if settings.budget and not 0 < settings.target <= 1:
        raise errors.UserError(
            f"shrink.target is a share of the {settings.budget} before, above 0 and "
            f"at most 1, got {settings.target}"
        )
    if settings.budget and settings.rules:
        raise errors.UserError(
            "shrink.budget finds one fraction for shrink.pattern; clear shrink.rules"
        )


def rules(settings: Any) -> tuple[tuple[str, float], ...]:
    """Returns the pairs (pattern of groups, fraction removed)."""
    return tuple(settings.rules) or ((settings.pattern, settings.fraction),)


def units(scene: scoring.Scene, settings: Any, rounded: Any) -> Made:
    """Removes units of groups: the preparation `shrink`."""
    del rounded
    f, weights = logits(scene.network), _weights(scene)
    images = _inputs(scene)
    pairs = shrink.twins(weights)
    groups = shrink.groups(f, alike=pairs)(weights, images[0][0])
    # Only what a rule takes needs a score.
    every = {group.name: group for group in groups.groups}
    if not every:
        raise errors.UserError("shrink: nothing of this network can be removed")
    took = tree.match([pattern for pattern, _ in rules(settings)], every)
    groups = groups._replace(groups=tuple(every[name] for name in took))

    def choose() -> dict[str, list[int]]:
        scores = unit_scores.SCORES[settings.score](scene, f, groups, weights, settings)
        scores = unit_scores.of_all(scene, f, groups, scores, weights, settings)
        removed = _chosen(f, groups, scores, weights, settings, images[0])
        return {name: units.tolist() for name, units in removed.items()}

    # Milliseconds are not the same twice: a restart must cut as it did.
    removed = {k: np.array(v) for k, v in scene.once(choose).items()}
    plan = shrink.make(groups, removed)
    parts = {
        groups.named(name).members[0].path: shrink.make(groups, {name: gone})
        for name, gone in removed.items()
    }
    worst = shrink.prove(f, plan, weights, images, parts=parts)
    _check_training(scene.network, plan, weights, images[0][0])
    changes = [
        Change(
            _count(group, removed),
            group.paths() if group.name in removed else (),
            "" if group.name in removed else "none of its units were chosen",
        )
        for group in groups.groups
    ]
    left = [name for name in every if name not in took]
    changes += [Change(name, (), "no rule takes it") for name in left]
    changes += [Change(name, (), "no rule follows it") for name in groups.missed]
    cut = tuple(
        _told(g.name, g.size, g.size - len(removed.get(g.name, ())), g.paths())
        for g in every.values()
    )
    proof = {"masked_minus_small": worst}
    return Made(shrink.cut(plan, weights), changes, plan, proof, cut)


def _count(group: shrink.Group, removed: shrink.Removed) -> str:
    gone = len(removed.get(group.name, ()))
    return f"{group.name} {group.size} to {group.size - gone}" if gone else group.name


def _chosen(f, groups, scores, weights, settings, example) -> shrink.Removed:
    """Returns the units to remove, by their share or down to a budget."""
    limits = shrink.Limits(settings.multiple, settings.floor)
    scope = unit_scores.SCOPES[settings.scope]

    def choose(fraction: float) -> shrink.Removed:
        pairs = (
            rules(settings) if not settings.budget else ((settings.pattern, fraction),)
        )
        return shrink.by_fraction(groups, scores, pairs, scope=scope, limits=limits)

    if not settings.budget:
        return choose(settings.fraction)

    def milliseconds(removed: shrink.Removed) -> float:
        plan = shrink.make(groups, removed)
        run = jax.jit(shrink.resize(f, plan))
        small = shrink.cut(plan, weights)
        return measure.latency(run, small, *example, repeats=30, warmup=3).median_ms

    def macs(removed: shrink.Removed) -> float:
        return shrink.macs(groups, removed)

    cost = macs if settings.budget == "macs" else milliseconds
    steps = 20 if settings.budget == "macs" else 7  # each compiles
    return shrink.to_budget(choose, cost, settings.target * cost({}), steps=steps)


def branches(scene: scoring.Scene, settings: Any, rounded: Any) -> Made:
    """Drops the residual branches that the loss misses least: the preparation `drop`.

    The loss is the stage's objective over some training batches, each branch with its
    weights at 0 in turn.
    """
    del rounded
    f, weights = logits(scene.network), _weights(scene)
    images = _inputs(scene)
    found = offered(shrink.branches(f)(weights, *images[0]), settings)
    seen = list(scene.batches(settings.batches))
    loss = jax.jit(scene.loss)

    def without(branch: shrink.Branch) -> float:
        masked = shrink.mask(shrink.drop([branch], weights), weights)
        return float(np.mean([loss(masked["params"], batch) for batch in seen]))

    def choose() -> list[str]:
        return [b.name for b in sorted(found, key=without)[: settings.count]]

    names = scene.once(choose)
    chosen = [branch for branch in found if branch.name in names]
    plan = shrink.drop(chosen, weights)
    parts = {b.leaves[0]: shrink.drop([b], weights) for b in chosen}
    worst = shrink.prove(f, plan, weights, images, parts=parts)
    changes = [
        Change(b.name, b.leaves if b in chosen else (), "" if b in chosen else "kept")
        for b in found
    ]
    cut = tuple(
        _told(b.name, len(b.leaves), 0 if b in chosen else len(b.leaves), b.leaves)
        for b in found
    )
    proof = {"masked_minus_small": worst}
    return Made(shrink.cut(plan, weights), changes, plan, proof, cut)


def _told(name: str, size: int, kept: int, members: Any) -> dict[str, Any]:
    return {"name": name, "size": size, "kept": kept, "members": list(members)}


def offered(found: list[shrink.Branch], settings: Any) -> list[shrink.Branch]:
    """Returns the branches that `drop` may choose from.

    Raises:
      UserError: a pattern that matches none, or more to drop than there are.
    """
    named = {branch.name: branch for branch in found}
    took = tree.match([settings.pattern], named)
    if settings.count > len(took):
        raise errors.UserError(
            f"drop.count is {settings.count}, but there are {len(took)} residual "
            f"branches to drop: {', '.join(took)}"
        )
    return [named[name] for name in took]


def outlined(
    name: str, settings: Any, network: Any, weights: dict[str, Any], images: Any
) -> shrink.Plan:
    """Returns a plan that leaves the shapes that the preparation will leave.

    Where these depend on values (a global choice, a budget, which branch), a plan that
    cuts nothing. Computes nothing.

    Raises:
      UserError: a rule that matches nothing, or nothing to remove.
    """
    f = logits(network)
    if name == "drop":
        offered(shrink.branches(f)(weights, images), settings)
        return NONE
    groups = shrink.groups(f)(weights, images)
    order = {group.name: np.arange(group.size) for group in groups.groups}
    limits = shrink.Limits(settings.multiple, settings.floor)
    removed = shrink.by_fraction(groups, order, rules(settings), limits=limits)
    if settings.scope != "group" or settings.budget:
        return NONE
    plan = shrink.make(groups, removed)
    _check_training(network, plan, weights, images)
    return plan


def _check_training(network: Any, plan: shrink.Plan, weights: Any, images: Any) -> None:
    """Raises a `UserError` if the network cannot train at the sizes that are left.

    Training may tie statistics to channels that evaluation does not.
    """
    small = jax.eval_shape(lambda w: shrink.cut(plan, w), weights)
    run = resized(network.apply, plan)
    key = jax.eval_shape(lambda: jax.random.key(0))
    jax.eval_shape(
        lambda p, v, x, k: run(p, v, x, train=True, key=k),
        small["params"],
        small["variables"],
        images,
        key,
    )


def _weights(scene: scoring.Scene) -> dict[str, Any]:
    return {"params": scene.params, "variables": scene.variables}


def _inputs(scene: scoring.Scene) -> list[tuple[jax.Array]]:
    """Returns batches of normal noise, as what was normalised would be, or of tokens.

    Noise reaches what no training example does; tokens are those of the training split.
    """
    if not jnp.issubdtype(scene.example.dtype, jnp.floating):
        return [(batch["input"][:2],) for batch in scene.batches(PROOFS)]
    rng = np.random.default_rng(0)
    shape = (2, *scene.example.shape[1:])
    return [(jnp.asarray(rng.normal(size=shape), jnp.float32),) for _ in range(PROOFS)]
