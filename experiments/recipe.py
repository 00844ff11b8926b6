"""From a config's names and settings to functions: networks, techniques, objectives."""

from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors, models, objectives, program, schedules, transforms, tree
from lib.data import augment, dataset, normalise, pipeline
from lib.train import optimizer, step

PROGRAMS = ("fake_quantize",)  # techniques on activations, by name


def load_data(settings: Any) -> dataset.Dataset:
    """Returns the data set that `config.data` asks for."""
    options = dict(settings)
    name, data_dir = options.pop("name"), options.pop("data_dir") or None
    options.pop("threads"), options.pop("ahead")
    return dataset.load(name, data_dir=data_dir, **options)


def build_model(settings: Any, classes: int) -> Any:
    """Returns the Linen module that a stage's `model` settings ask for."""
    fields = dict(settings)
    return models.build(fields.pop("name"), classes=classes, **fields)


def rules(config: Any, stage: Any) -> tuple:
    """Returns the rules by which a stage's activations are rounded; () for none."""
    for name in stage.program:
        errors.lookup(dict.fromkeys(PROGRAMS), name, "technique on activations")
    if "fake_quantize" not in stage.program:
        return ()
    settings = config.fake_quantize
    kept = {"bits": settings.bits, "symmetric": settings.symmetric}
    return ((settings.pattern, kept),)


def calibration(settings: Any) -> program.Calibration:
    """Returns the calibration that `config.fake_quantize` asks for."""
    make = errors.lookup(program.CALIBRATIONS, settings.calibration, "calibration")
    options = {"decay": settings.decay} if settings.calibration != "minmax" else {}
    return make(**options)


class Chain(NamedTuple):
    """A stage's techniques on weights.

    Attributes:
      transform: the chain.
      settled: the first step count after which no schedule moves any more.
    """

    transform: transforms.Transform
    settled: int


def build_chain(config: Any, stage: Any) -> Chain:
    """Returns the chain of a stage's techniques, each with its settings at the top."""
    parts, settled = [], 0
    for name in stage.transforms:
        make = errors.lookup(transforms.TECHNIQUES, name, "technique")
        options = dict(config[name])
        if "schedule" in options:
            options, end = _scheduled(name, options, stage.steps)
            settled = max(settled, end)
        parts.append(make(**options))
    return Chain(transforms.chain(*parts), settled)


def _scheduled(name: str, options: dict[str, Any], steps: int):
    """Returns a technique's arguments with its strength as a schedule, and its end."""
    kind = options.pop("schedule")
    initial, begin, end = (options.pop(k) for k in ("initial", "begin", "end"))
    if not kind:
        return options, 0
    make = errors.lookup(schedules.SCHEDULES, kind, "schedule")
    if not 0 <= begin <= end <= 1:
        raise errors.UserError(
            f"{name}: begin and end are shares of the stage's steps with "
            f"0 <= begin <= end <= 1, got {begin} and {end}"
        )
    strength, every = transforms.STRENGTHS[name], options["every"]
    final = options[strength]
    # A schedule hides its values from the technique: let it judge the plain numbers.
    for value in (initial, final):
        transforms.TECHNIQUES[name](**{**options, strength: value})
    schedule = make(
        initial=initial,
        final=final,
        begin=round(begin * steps),
        end=round(end * steps),
    )
    updates = np.arange(0, steps, every)
    moving = updates[np.asarray(schedule(updates)) != np.float32(final)]
    if updates[-1] in moving:
        raise errors.UserError(
            f"{name}: updates every {every} steps until step {round(end * steps)} do "
            f"not complete {strength}={final} in a stage of {steps} steps; "
            "lower end or every"
        )
    # The update after the last one that still moves completes it.
    last = int(moving[-1]) + every if moving.size else 0
    return {**options, strength: schedule}, last + 1


def build(
    config: Any,
    stage: Any,
    network: step.Network,
    teacher: step.Network | None,
    normalisation: normalise.Normalisation,
) -> tuple[step.Recipe, Chain]:
    """Returns what a stage trains, and how."""
    chain = build_chain(config, stage)
    rate = optimizer.learning_rate(
        peak=stage.learning_rate,
        decay=stage.decay,
        warmup=stage.warmup,
        steps=stage.steps,
    )
    augmentation = augment.build(stage.augment, config) if stage.augment else None
    recipe = step.Recipe(
        network=network,
        transform=chain.transform,
        optimizer=optimizer.build(
            stage.optimizer,
            learning_rate=rate,
            weight_decay=stage.weight_decay,
            momentum=stage.momentum,
            clip=stage.clip,
        ),
        objective=objectives.build(stage.objective, config),
        prepare=pipeline.preparation(normalisation, augmentation),
        teacher=teacher,
        ema=stage.ema,
    )
    return recipe, chain


def calibrate(
    config: Any,
    network: step.Network,
    params: Any,
    variables: Any,
    data: dataset.Dataset,
    batch_size: int,
) -> program.Ranges:
    """Returns the ranges of the network's activations over training batches."""
    settings = config.fake_quantize
    feed = pipeline.feed(
        data.train,
        batch_size=batch_size,
        seed=config.seed,
        threads=config.data.threads,
        ahead=config.data.ahead,
    )
    prepare = pipeline.preparation(data.normalisation, None)

    def images():
        for _ in range(settings.batches):
            rows = jax.tree.map(lambda r: r[0], feed.next(1))
            yield variables, prepare(None, feed.take(feed.resident, rows))["image"]

    ranges = program.calibrate(
        network.apply, params, images(), calibration(settings), train=False, key=None
    )
    pattern = tree.compile_pattern(settings.pattern)
    return {site: found for site, found in ranges.items() if pattern.search(site)}
