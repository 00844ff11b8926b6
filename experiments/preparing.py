"""Changes of a stage's weights before all else, by name.

Most keep the function. `shrink` and `drop` remove a part of it, with proof that what is
left is what zeros in its place would give; `correct_bias` and `reestimate` change it
towards what it was before weights were rounded or removed. All are found by following
the traced program in evaluation.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from experiments import scoring, shrinking
from experiments.choices import Choices
from experiments.shrinking import Made
from lib import errors, program, shrink, tree
from lib.data import augment
from lib.report import progress
from lib.train import step

# (params, variables) -> params as the stage's chain rounds them.
Rounded = Callable[[Any, Any], Any]

MOST = 12  # names of what changed that a line tells; what is left is told in full
EXAMPLES = 2  # images to follow the program with, and to check it on


def fold_batch_norm(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.fold_batch_norm`."""
    del settings, rounded
    return Made(
        *program.fold_batch_norm(_function(scene))(_weights(scene), *_example(scene))
    )


def equalize(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.equalize`."""
    del settings, rounded
    return Made(*program.equalize(_function(scene))(_weights(scene), *_example(scene)))


def smooth(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.smooth` by what some batches give."""
    del rounded
    made = program.smooth(
        _function(scene),
        _weights(scene),
        _batches(scene, settings),
        example=_example(scene),
        alpha=settings.alpha,
        pattern=settings.pattern,
    )
    return Made(*made)


def awq(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.awq` with the rounding of the stage's chain."""
    made = program.awq(
        _function(scene),
        _weights(scene),
        _batches(scene, settings),
        example=_example(scene),
        rounding=lambda weights: {**weights, "params": rounded(**weights)},
        points=settings.points,
        pattern=settings.pattern,
    )
    return Made(*made)


def correct_bias(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.correct_bias` for the rounding of the stage's chain."""
    weights = _weights(scene)
    made = program.correct_bias(
        _function(scene),
        weights,
        {**weights, "params": rounded(**weights)},
        _batches(scene, settings),
        example=_example(scene),
        pattern=settings.pattern,
    )
    return Made(*made)


def reestimate(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Made:
    """`program.reestimate` with the weights as the stage's chain rounds them.

    Over batches distorted as in the training that the weights come from: statistics of
    clean images are others (a pretrained ResNet-20 lost 3 points by them).
    """
    params = rounded(**_weights(scene))

    def update(variables, images, key):
        return scene.network.apply(params, variables, images, train=True, key=key)[1]

    found = scene.batches(settings.batches, settings.augment)
    batches = ((batch["input"], batch["key"]) for batch in found)
    variables, changes = program.reestimate(update, scene.variables, batches)
    return Made({"params": scene.params, "variables": variables}, changes)


# name -> (scene, the settings under its name, rounding) -> what it makes.
PREPARATIONS: dict[str, Callable[[scoring.Scene, Any, Rounded], Made]] = {
    "shrink": shrinking.units,
    "drop": shrinking.branches,
    "fold_batch_norm": fold_batch_norm,
    "equalize": equalize,
    "smooth": smooth,
    "awq": awq,
    "correct_bias": correct_bias,
    "reestimate": reestimate,
}


class Prepared(NamedTuple):
    """What a stage trains from.

    Attributes:
      params: nested dict of dense weights.
      variables: the model's other collections.
      plan: what was cut off them, by this stage and those before it.
      metrics: of the stage, to be reported.
      cut: what this stage could cut, and did, for the report.
    """

    params: Any
    variables: Any
    plan: shrink.Plan
    metrics: dict[str, float] = {}
    cut: tuple[dict[str, Any], ...] = ()


def prepare(
    config: Any,
    stage: Any,
    start: Prepared,
    scene: Callable[[Prepared], scoring.Scene],
    rounded: Callable[[Prepared], Any],
    choices: Choices | None = None,
) -> Prepared:
    """Returns the weights after the preparations of `stage.prepare`, in order.

    Says what each of them changed, and what it left and why.

    Args:
      config: the whole config, with settings under the names.
      stage: the stage's settings.
      start: the weights before.
      scene: weights -> the network in float at their sizes, with weights and batches.
      rounded: weights -> params as the stage's chain will round them.
      choices: what was chosen before a restart; None to choose anew.

    Raises:
      UserError: an unknown name, or settings that do not fit.
      RunError: a preparation would have changed the function.
    """
    check(config, stage)
    now = start
    for number, name in enumerate(stage.prepare):

        def on_grid(params: Any, variables: Any, now: Prepared = now) -> Any:
            return rounded(now._replace(params=params, variables=variables))

        at = scene(now)
        if choices is not None:
            at = at._replace(once=functools.partial(choices.once, f"{number} {name}"))
        made = PREPARATIONS[name](at, config.get(name), on_grid)
        now = Prepared(
            made.weights["params"],
            made.weights["variables"],
            shrink.compose(now.plan, made.plan),
            now.metrics | made.metrics,
            now.cut + made.cut,
        )
        progress.say(_told(name, made.changes))
    return now


def check(config: Any, stage: Any) -> None:
    """Raises a `UserError` for what is wrong whatever the model is."""
    for name in stage.prepare:
        errors.lookup(PREPARATIONS, name, "preparation")
        slow = [t for t in stage.transforms if scoring.asked(t, config[t]) == "grams"]
        if name == "awq" and slow:
            raise errors.UserError(
                f"awq tries many scales, and {slow[0]} would measure and round anew "
                "for each; use one of the two"
            )
        settings = config.get(name, {})
        if name == "shrink":
            shrinking.check(settings)
        for key, least in (("batches", 1), ("points", 2), ("count", 1)):
            if settings.get(key, least) < least:
                raise errors.UserError(
                    f"{name}.{key} is at least {least}, got {settings[key]}"
                )
        if not 0 <= settings.get("alpha", 0) <= 1:
            raise errors.UserError(
                f"{name}.alpha is from 0 to 1, got {settings['alpha']}"
            )
        tree.compile_pattern(settings.get("pattern", "."))
        if settings.get("augment"):
            # To see that it can be built; the classes are not known yet.
            kind = config.data.kind
            augment.build(settings["augment"], config, kind=kind, classes=1)


def outline(
    config: Any,
    stage: Any,
    apply: Callable[..., Any],
    start: Prepared,
    example: jax.ShapeDtypeStruct,
) -> Prepared:
    """Returns shapes and plan as `prepare` will leave them; computes nothing.

    Args:
      config: the whole config.
      stage: the stage's settings.
      apply: of the uncut model.
      start: shapes and dtypes before.
      example: a batch of one input, as shape and dtype.

    Raises:
      UserError: preparations that do not fit the model: a pattern that takes nothing,
        statistics of a model that keeps none.
    """
    now = start
    for name in stage.prepare:
        settings = config.get(name, {})
        weights = {"params": now.params, "variables": now.variables}
        network = step.Network(shrinking.resized(apply, now.plan))
        if name == "reestimate" and not tree.flatten(now.variables):
            raise errors.UserError("reestimate: the model keeps no running statistics")
        if name in ("shrink", "drop"):
            plan = shrinking.outlined(name, settings, network, weights, example)
            cut = jax.eval_shape(lambda w, plan=plan: shrink.cut(plan, w), weights)
            plan = shrink.compose(now.plan, plan)
            now = now._replace(**cut, plan=plan)
        elif "pattern" in settings:
            found = program.sites(shrinking.logits(network))(weights, example)
            names = [s.name for s in found if s.lhs_is_weight != s.rhs_is_weight]
            tree.match([settings.pattern], names)
    return now


def _told(name: str, changes: Sequence[program.Change]) -> str:
    """Returns what a preparation did, in words."""
    left = [f"{c.name} ({c.why})" for c in changes if not c.paths]
    done = [c.name for c in changes if c.paths]
    shown = done[:MOST] + [f"and {len(done) - MOST} more"] * (len(done) > MOST)
    return (
        f"{name}: changed {len(done)} of {len(changes)}: {', '.join(shown) or 'none'}; "
        f"left as they are: {', '.join(left) or 'none'}"
    )


def _function(scene: scoring.Scene) -> Callable[..., jax.Array]:
    return shrinking.logits(scene.network)


def _weights(scene: scoring.Scene) -> dict[str, Any]:
    return {"params": scene.params, "variables": scene.variables}


def _example(scene: scoring.Scene) -> tuple[jax.Array]:
    (batch,) = scene.batches(1)
    return (batch["input"][:EXAMPLES],)


def _batches(scene: scoring.Scene, settings: Any) -> list[tuple[jax.Array]]:
    return [(batch["input"],) for batch in scene.batches(settings.batches)]
