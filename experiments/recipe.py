"""From a config's names and settings to functions: networks, techniques, objectives."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import scoring, teaching
from lib import errors, models, objectives, program, schedules, transforms
from lib.data import augment, dataset, inputs, pipeline
from lib.train import optimizer, step, teachers

PROGRAMS = ("fake_quantize",)  # techniques on activations, by name

# The settings of config.fake_quantize that each calibration takes.
CALIBRATED_BY = {
    "minmax": (),
    "moving_average": ("decay",),
    "percentile": ("percent",),
    "mse": ("bits", "symmetric"),
    "entropy": ("bits", "symmetric"),
    "fixed": ("bounds",),
}


def load_data(settings: Any, fitted: inputs.Inputs | None = None) -> dataset.Dataset:
    """Returns the data set that `config.data` asks for.

    Args:
      settings: `config.data`, or what the label of an artifact keeps of it.
      fitted: the inputs of that artifact, which are not made anew.
    """
    options = dict(settings)
    name, data_dir = options.pop("name"), options.pop("data_dir") or None
    options.pop("threads"), options.pop("ahead")
    return dataset.load(name, data_dir=data_dir, fitted=fitted, **options)


def build_model(settings: Any, classes: int) -> Any:
    """Returns the Linen module that a stage's `model` settings ask for."""
    return models.build(classes=classes, **settings)


def rules(config: Any, stage: Any) -> tuple:
    """Returns the rules by which a stage's activations are rounded; () for none."""
    for name in stage.program:
        errors.lookup(dict.fromkeys(PROGRAMS), name, "technique on activations")
    if "fake_quantize" not in stage.program:
        return ()
    settings = config.fake_quantize
    kept = {"symmetric": settings.symmetric}
    if settings.range != "static":
        kept["range"] = settings.range
    if settings.learn:
        kept["learn"] = settings.learn
    for rule in settings.rules:
        if len(rule) != 2:
            raise errors.UserError(
                f"fake_quantize.rules is pairs (pattern, bits), got {rule!r}"
            )
    pairs = settings.rules or ((settings.pattern, settings.bits),)
    return tuple((pattern, {"bits": bits, **kept}) for pattern, bits in pairs)


def rounding(config: Any, stage: Any) -> step.Rounding:
    """Returns when and on which ranges a stage rounds its activations."""
    settings = config.fake_quantize
    if not 0 <= settings.begin <= 1:
        raise errors.UserError(
            "fake_quantize.begin is a share of the stage's steps, from 0 to 1, got "
            f"{settings.begin}"
        )
    if not settings.shrink >= 0:
        raise errors.UserError(
            f"fake_quantize.shrink is at least 0, got {settings.shrink}"
        )
    if settings.track and not 0 < settings.decay < 1:
        raise errors.UserError(
            "fake_quantize.track needs a decay above 0 and below 1, got "
            f"{settings.decay}"
        )
    if "fake_quantize" not in stage.program:
        return step.Rounding()
    if settings.track and (settings.learn or settings.range != "static"):
        raise errors.UserError(
            "fake_quantize.track follows static ranges that are not learned; clear it, "
            "or learn and range"
        )
    if settings.shrink and not settings.learn:
        raise errors.UserError(
            "fake_quantize.shrink is a penalty on learned ranges; set learn or clear it"
        )
    if settings.points != "inputs" and (settings.track or settings.learn):
        raise errors.UserError(
            f"fake_quantize: with points {settings.points!r} operands share ranges, "
            "which track and learn would move apart; clear both, or set points to "
            "'inputs'"
        )
    return step.Rounding(
        begin=round(settings.begin * stage.steps),
        track=settings.decay if settings.track else 0.0,
        shrink=settings.shrink,
    )


def freeze_norm(stage: Any) -> int | None:
    """Returns the first step that leaves batch norm's statistics; None for none."""
    if not 0 <= stage.freeze_norm <= 1:
        raise errors.UserError(
            "freeze_norm is a share of the stage's steps, from 0 to 1, got "
            f"{stage.freeze_norm}"
        )
    return None if stage.freeze_norm == 1 else round(stage.freeze_norm * stage.steps)


def calibration(settings: Any, bits: int | None = None) -> program.Calibration:
    """Returns the calibration that `config.fake_quantize` asks for.

    `bits`, where given, are those of the rule it is for.
    """
    make = errors.lookup(program.CALIBRATIONS, settings.calibration, "calibration")
    options = {name: settings[name] for name in CALIBRATED_BY[settings.calibration]}
    if bits is not None and "bits" in options:
        options["bits"] = bits
    return make(**options)


class Chain(NamedTuple):
    """A stage's techniques on weights.

    Attributes:
      transform: the chain.
      settled: the first step count after which no schedule moves any more.
    """

    transform: transforms.Transform
    settled: int


def build_chain(config: Any, stage: Any, given: scoring.Given | None = None) -> Chain:
    """Returns the chain of a stage's techniques, each with its settings at the top.

    Args:
      config: the whole config.
      stage: the stage's settings.
      given: what was measured for them, as `scoring.measure` returns it.
    """
    parts, settled = [], 0
    for name in stage.transforms:
        errors.lookup(transforms.TECHNIQUES, name, "technique")
        options = scoring.arguments(name, config[name], (given or {}).get(name))
        rules = options.pop("rules", ())
        if rules:
            part, end = _ruled(name, options, rules, stage.steps)
        else:
            part, end = _technique(name, options, stage.steps)
        parts.append(part)
        settled = max(settled, end)
    return Chain(transforms.chain(*parts), settled)


def _ruled(name: str, options: dict[str, Any], rules: Any, steps: int):
    """Returns a technique at other strengths by rules, `((pattern, strength), ...)`."""
    strength, aimed, settled = transforms.RULED[name], [], 0
    for rule in rules:
        if len(rule) != 2:
            raise errors.UserError(
                f"{name}.rules is pairs (pattern, {strength}), got {rule!r}"
            )
        # The rule picks the leaves; the first that matches takes one.
        chosen = {**options, strength: rule[1], "pattern": "."}
        part, end = _technique(name, chosen, steps)
        aimed.append((rule[0], part))
        settled = max(settled, end)
    return transforms.select(aimed), settled


def _technique(name: str, options: dict[str, Any], steps: int):
    """Returns a technique, and the step count after which it does not move any more."""
    if "schedule" in options:
        options, settled = _scheduled(name, options, steps)
    else:
        options, settled = _in_steps(name, options, steps)
    return transforms.TECHNIQUES[name](**options), settled


def _in_steps(name: str, options: dict[str, Any], steps: int):
    """Returns the options with shares of the stage as steps, and the end."""
    shares = {k: options[k] for k in ("begin", "end") if k in options}
    if not all(0 <= share <= 1 for share in shares.values()):
        raise errors.UserError(
            f"{name}: begin and end are shares of the stage's steps, from 0 to 1, got "
            f"{shares}"
        )
    whole = {k: round(share * steps) for k, share in shares.items()}
    return {**options, **whole}, whole.get("end", 0)


def _scheduled(name: str, options: dict[str, Any], steps: int):
    """Returns a technique's arguments with its strength as a schedule, and its end."""
    kind = options.pop("schedule")
    initial, begin, end = (options.pop(k) for k in ("initial", "begin", "end"))
    if not kind:
        return options, 0
    if not steps:
        raise errors.UserError(
            f"{name}.schedule={kind!r} moves as training goes, but the stage has "
            f"steps=0; set {name}.schedule=''"
        )
    make = errors.lookup(schedules.SCHEDULES, kind, "schedule")
    if not 0 <= begin <= end <= 1:
        raise errors.UserError(
            f"{name}: begin and end are shares of the stage's steps with "
            f"0 <= begin <= end <= 1, got {begin} and {end}"
        )
    strength, every = transforms.STRENGTHS[name], options.get("every", 1)
    final = options[strength]
    traced = isinstance(final, jax.Array)  # in a sweep, which judges them itself
    # A schedule hides its values from the technique: let it judge the plain numbers.
    for value in () if traced else (initial, final):
        transforms.TECHNIQUES[name](**{**options, strength: value})
    schedule = make(
        initial=initial,
        final=final,
        begin=round(begin * steps),
        end=round(end * steps),
    )
    if traced:
        return {**options, strength: schedule}, steps
    updates = np.arange(0, steps, every)
    with jax.ensure_compile_time_eval():  # in a sweep of other settings, all is traced
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


def build_optimizer(stage: Any) -> optax.GradientTransformation:
    """Returns the optimiser of a stage, with its learning rate.

    Raises:
      UserError: an unknown name, or a number out of its range.
    """
    steps = max(stage.steps, 1)
    rate = optimizer.learning_rate(
        peak=stage.learning_rate,
        decay=stage.decay,
        warmup=stage.warmup,
        steps=steps,
        drops=stage.drops,
        factor=stage.drop_factor,
    )
    return optimizer.build(
        stage.optimizer,
        learning_rate=rate,
        weight_decay=stage.weight_decay,
        growing=steps if stage.growing else 0,
        momentum=stage.momentum,
        clip=stage.clip,
    )


def build(
    config: Any,
    stage: Any,
    network: step.Network,
    teacher: teachers.Teacher | None,
    prepares: inputs.Inputs,
    classes: int,
    given: scoring.Given | None = None,
    examples: int | None = None,
) -> tuple[step.Recipe, Chain]:
    """Returns what a stage trains, and how.

    Args:
      config: of the run.
      stage: its part for the stage.
      network: the model that learns.
      teacher: the network that teaches, or None.
      prepares: makes inputs of stored examples.
      classes: labels lie in [0, classes).
      given: as for `build_chain`.
      examples: of the training split; None where no term counts them.
    """
    chain = build_chain(config, stage, given)
    distortions = augment.build(
        stage.augment, config, kind=prepares.KIND, classes=classes
    )
    recipe = step.Recipe(
        network=network,
        transform=chain.transform,
        optimizer=build_optimizer(stage),
        objective=objectives.build(stage.objective, config, examples=examples),
        prepare=pipeline.preparation(prepares, *distortions),
        teacher=teacher,
        mean_teacher=teaching.itself(stage),
        ema=stage.ema,
        rounding=rounding(config, stage),
        freeze_norm=freeze_norm(stage),
    )
    # Before it rounds, a checkpoint is of another network than the result.
    settled = max(chain.settled, recipe.rounding.begin)
    return recipe, chain._replace(settled=settled)


def calibrate(
    config: Any,
    network: step.Network,
    params: Any,
    variables: Any,
    data: dataset.Dataset,
    batch_size: int,
) -> program.Ranges:
    """Returns the ranges of the network's activations over training batches.

    Those of each call are not among them; where every range is, nothing is computed.
    """
    settings = config.fake_quantize
    strengths = {s["bits"] for _, s in network.rules if program.is_static(s)}
    if strengths and "bits" not in CALIBRATED_BY[settings.calibration]:
        strengths = {None}  # one pass serves all
    ranges: program.Ranges = {}
    for bits in sorted(strengths, key=str):
        batches = scoring.batches(config, data, batch_size, settings.batches)
        images = ((variables, batch["input"]) for batch in batches)
        how = calibration(settings, bits)
        found = program.calibrate(
            network.apply,
            params,
            images,
            how,
            points=network.points,
            train=False,
            key=None,
        )
        for site, sides in found.items():
            kept = program.settings_of(site, network.rules)
            if program.is_static(kept) and bits in (None, kept["bits"]):
                ranges[site] = sides
    return ranges
