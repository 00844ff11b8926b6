"""Changes of a stage's weights before all else, by name: none changes the function.

But for `correct_bias` and `reestimate`, which change it towards what it was before the
weights are rounded. All are found by following the traced program in evaluation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import scoring
from lib import errors, program, tree
from lib.data import augment
from lib.report import progress

# (params, variables) -> params as the stage's chain rounds them.
Rounded = Callable[[Any, Any], Any]
Prepared = tuple[Any, list[program.Change]]  # {"params", "variables"}, what changed

EXAMPLES = 2  # images to follow the program with, and to check it on


def fold_batch_norm(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.fold_batch_norm`."""
    del settings, rounded
    return program.fold_batch_norm(_function(scene))(_weights(scene), *_example(scene))


def equalize(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.equalize`."""
    del settings, rounded
    return program.equalize(_function(scene))(_weights(scene), *_example(scene))


def smooth(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.smooth` by what some batches give."""
    del rounded
    return program.smooth(
        _function(scene),
        _weights(scene),
        _batches(scene, settings),
        example=_example(scene),
        alpha=settings.alpha,
        pattern=settings.pattern,
    )


def awq(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.awq` with the rounding of the stage's chain."""
    return program.awq(
        _function(scene),
        _weights(scene),
        _batches(scene, settings),
        example=_example(scene),
        rounding=lambda weights: {**weights, "params": rounded(**weights)},
        points=settings.points,
        pattern=settings.pattern,
    )


def correct_bias(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.correct_bias` for the rounding of the stage's chain."""
    weights = _weights(scene)
    return program.correct_bias(
        _function(scene),
        weights,
        {**weights, "params": rounded(**weights)},
        _batches(scene, settings),
        example=_example(scene),
        pattern=settings.pattern,
    )


def reestimate(scene: scoring.Scene, settings: Any, rounded: Rounded) -> Prepared:
    """`program.reestimate` with the weights as the stage's chain rounds them.

    Over batches distorted as in the training that the weights come from: statistics of
    clean images are others (a pretrained ResNet-20 lost 3 points by them).
    """
    params = rounded(**_weights(scene))

    def update(variables, images, key):
        return scene.network.apply(params, variables, images, train=True, key=key)[1]

    found = scene.batches(settings.batches, settings.augment)
    batches = ((batch["image"], batch["key"]) for batch in found)
    variables, changes = program.reestimate(update, scene.variables, batches)
    return {"params": scene.params, "variables": variables}, changes


# name -> (scene, the settings under its name, rounding) -> what it makes.
PREPARATIONS: dict[str, Callable[[scoring.Scene, Any, Rounded], Prepared]] = {
    "fold_batch_norm": fold_batch_norm,
    "equalize": equalize,
    "smooth": smooth,
    "awq": awq,
    "correct_bias": correct_bias,
    "reestimate": reestimate,
}


def prepare(
    config: Any, stage: Any, scene: scoring.Scene, rounded: Rounded
) -> tuple[Any, Any]:
    """Returns (params, variables) after the preparations of `stage.prepare`, in order.

    Says what each of them changed, and what it left and why.

    Args:
      config: the whole config, with settings under the names.
      stage: the stage's settings.
      scene: its network in float, weights and batches.
      rounded: (params, variables) -> params as the stage's chain will round them.

    Raises:
      UserError: an unknown name, or settings that do not fit.
      RunError: a preparation would have changed the function.
    """
    check(config, stage)
    for name in stage.prepare:
        made, changes = PREPARATIONS[name](scene, config.get(name), rounded)
        scene = scene._replace(params=made["params"], variables=made["variables"])
        progress.say(_told(name, changes))
    return scene.params, scene.variables


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
        for key, least in (("batches", 1), ("points", 2)):
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
            augment.build(settings["augment"], config)


def outline(
    config: Any,
    stage: Any,
    network: Any,
    params: Any,
    variables: Any,
    shape: Sequence[int],
) -> None:
    """Raises a `UserError` for preparations that do not fit the model.

    Computes nothing: a pattern that takes no contraction with a weight, statistics of a
    model that keeps none.

    Args:
      config: the whole config.
      stage: the stage's settings.
      network: that learns.
      params: shapes and dtypes of its weights.
      variables: those of its other collections.
      shape: of an image.
    """
    for name in stage.prepare:
        settings = config.get(name, {})
        if name == "reestimate" and not tree.flatten(variables):
            raise errors.UserError("reestimate: the model keeps no running statistics")
        if "pattern" in settings:
            images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
            weights = {"params": params, "variables": variables}
            found = program.sites(_apply(network))(weights, images)
            names = [s.name for s in found if s.lhs_is_weight != s.rhs_is_weight]
            tree.match([settings.pattern], names)


def _told(name: str, changes: Sequence[program.Change]) -> str:
    """Returns what a preparation did, in words."""
    left = [f"{c.name} ({c.why})" for c in changes if not c.paths]
    done = [c.name for c in changes if c.paths]
    return (
        f"{name}: changed {len(done)} of {len(changes)}: {', '.join(done) or 'none'}; "
        f"left as they are: {', '.join(left) or 'none'}"
    )


def _apply(network: Any) -> Callable[..., jax.Array]:
    """Returns (weights, images) -> logits, in evaluation and in float."""

    def logits(weights, images):
        return network.apply(
            weights["params"], weights["variables"], images, train=False, key=None
        )[0][0]

    return logits


def _function(scene: scoring.Scene) -> Callable[..., jax.Array]:
    return _apply(scene.network)


def _weights(scene: scoring.Scene) -> dict[str, Any]:
    return {"params": scene.params, "variables": scene.variables}


def _example(scene: scoring.Scene) -> tuple[jax.Array]:
    (batch,) = scene.batches(1)
    return (batch["image"][:EXAMPLES],)


def _batches(scene: scoring.Scene, settings: Any) -> list[tuple[jax.Array]]:
    return [(batch["image"],) for batch in scene.batches(settings.batches)]
