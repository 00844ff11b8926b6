"""A stage as a program of its settings, its seed and its examples: a run of many.

What every stage of a population shares: sweeps, searches, folds and bootstraps.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import chains, recipe
from lib import errors, models, tree
from lib.data import dataset, examples, pipeline, splits
from lib.report import progress
from lib.train import forms, loop, population, step

OUTSIDE = ("steps", "batch_size")  # of a stage, what the feed reads as well

Settings = dict[str, float]


def check(who: str, name: str, stage: Any) -> None:
    """Raises a `UserError` for a stage that does not fit into one program."""
    beyond = stage.weights or stage.prepare or stage.freeze_norm != 1
    if stage.teacher or stage.start or stage.program or beyond:
        raise errors.UserError(
            f"{who}: {name} starts afresh, without a teacher and without rounding "
            "activations; clear its start, teacher, program, weights, prepare and "
            "freeze_norm"
        )
    if stage.patience and stage.use != "best":
        raise errors.UserError(
            f"{who}: {name}.patience needs {name}.use='best', got {stage.use!r}"
        )


def check_values(config: Any, name: str, settings: dict[str, Any]) -> None:
    """Raises a `UserError` for a number out of its range: traced, it has none."""
    now = changed(config, settings)
    chains.build(now, now[name])
    recipe.build_model(now[name].model, 2)  # whatever the number of classes
    recipe.build_optimizer(now[name])


def changed(config: Any, settings: dict[str, Any]) -> Any:
    """Returns a copy of the config with other values, which may be traced."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        for field, value in settings.items():
            *groups, last = field.split(".")
            group = copy
            for name in groups:
                group = group[name]
            group[last] = value
    return copy


def members(
    stage: Any, data: dataset.Dataset, grid: Sequence[tuple[Settings, int]]
) -> tuple[list[population.Member], Any]:
    """Returns what each run of a stage is given, and what all read on the device.

    Args:
      stage: its settings.
      data: is put on the device.
      grid: (settings that are traced, seed) of each run.

    Raises:
      UserError: the data are on disk.
    """
    if not isinstance(data.train.source, examples.Arrays):
        raise errors.UserError(
            f"a sweep: data set {data.name!r} is larger than data.resident_bytes, and "
            "all runs share it in memory; raise that"
        )
    found = []
    for settings, seed in grid:
        feed = pipeline.OnDevice(
            data.train, batch_size=stage.batch_size, seed=seed, sharding=None
        )
        numbers = {k: jnp.float32(v) for k, v in settings.items()}
        rows = feed.next(stage.steps)
        found.append(population.Member(numbers, jnp.int32(seed), rows))
    return found, feed.resident


def held_out(data: dataset.Dataset) -> Any:
    """Returns the whole validation split as one batch on the device."""
    judged = splits.may_choose(data.validation, "the best setting")
    (batch,) = pipeline.eval_batches(judged, len(judged))
    return jax.device_put(batch)


def told(one: population.Trained, held_out: Any) -> dict[str, float]:
    """Returns what a run found, as numbers."""
    return {
        "accuracy": int(one.correct) / int(held_out["weight"].sum()),
        "nonzero": int(one.nonzero),
        "loss": float(one.losses[int(one.steps) - 1]),  # 0 behind its last step
    }


class Parts(NamedTuple):
    """What a run of a stage is made of; arguments of `population.run_of`.

    Attributes:
      recipe_of: settings -> what is trained.
      best_of: settings -> which weights it leaves; None: its last.
      init: PRNG key -> (params, variables).
      plain: (None, raw batch) -> batch, without augmentation.
    """

    recipe_of: population.Recipes
    best_of: Callable[[dict[str, Any]], population.Best] | None
    init: population.Init
    plain: population.Prepare


def parts(config: Any, name: str, data: dataset.Dataset) -> Parts:
    """Returns what a run of the stage `name` is made of; settings may be traced."""
    stage = config[name]
    shapes = recipe.build_model(stage.model, data.classes)

    def built(settings):
        now = changed(config, settings)
        module = recipe.build_model(now[name].model, data.classes)
        network = step.Network(models.make_apply(module))
        return recipe.build(now, now[name], network, None, data.inputs, data.classes)

    def best_of(settings):
        every = loop.pace(
            steps=stage.steps,
            log=config.log_every,
            save=config.save_every,
            call=config.steps_per_call,
            convolves=False,
        ).save
        return population.Best(every, built(settings)[1].settled, stage.patience)

    return Parts(
        lambda settings: built(settings)[0],
        best_of if stage.use == "best" else None,
        lambda key: models.init(shapes, key, data.shape, data.inputs.DTYPE),
        pipeline.preparation(data.inputs, None),
    )


def run_of(made: Parts) -> forms.Run:
    """Returns (member, resident, held out) -> `population.Trained`."""
    return population.run_of(
        made.recipe_of, made.init, pipeline.OnDevice.take, made.plain, made.best_of
    )


def traces(config: Any, name: str, data: dataset.Dataset, path: str) -> bool:
    """Returns whether a run's program can be traced without a field's number.

    Then runs that differ in it are one program. A field that no run reads cannot.
    """
    if path in [f"{name}.{k}" for k in OUTSIDE] or path.startswith("data."):
        return False
    now = tree.get(config.to_dict(), path.replace(".", "/"))
    if isinstance(now, bool) or not isinstance(now, int | float):
        return False
    (member,), resident = members(config[name], data, [({path: now}, 0)])
    run = run_of(parts(config, name, data))
    try:
        closed = jax.make_jaxpr(run)(member, resident, held_out(data))
    except (TypeError, ValueError):  # it is asked for its value somewhere
        return False
    first = closed.jaxpr.invars[0]  # the one setting
    return any(first is v for eqn in closed.jaxpr.eqns for v in eqn.invars)


def fastest(seconds: dict[str, float], count: int) -> str:
    """Returns the form that a pilot of so many runs found fastest, and says so."""
    form = min(seconds, key=seconds.get)
    shown = {k: round(v, 3) for k, v in seconds.items()}
    progress.say(f"a pilot of {count} runs chose {form}: {shown} s")
    return form


def pilot(
    made: dict[str, forms.Form],
    members: Sequence[population.Member],
    resident: Any,
    held_out: Any,
) -> dict[str, float]:
    """Returns the seconds that a twentieth of the steps takes in each form."""
    tried = {name: made[name] for name in forms.possible()}
    return forms.pilot(tried, population.beginnings(members), resident, held_out)
