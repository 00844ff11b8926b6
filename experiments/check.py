"""Looks at a whole config before any compute: every name, shape, rule and range."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import (
    activations,
    caching,
    preparing,
    recipe,
    scoring,
    shipping,
    shrinking,
    starting,
    teaching,
)
from lib import errors, models, program, shrink, transforms
from lib.data import augment, dataset, teacher_cache
from lib.data.text import tokens
from lib.report import progress
from lib.train import parallel, step, teachers


class Stage(NamedTuple):
    """A stage that was found to be sound.

    Attributes:
      name: a key of the config.
      index: its place in the order.
      module: the Linen module it trains.
      rules: by which its activations are rounded; () for none.
      points: of `program.POLICIES`, which operands these may round.
      plan: what takes each of its weights.
      coverage: what takes each of its contractions.
      cut: what its weights have lost, as far as shapes tell.
    """

    name: str
    index: int
    module: Any
    rules: tuple
    points: str
    plan: list[transforms.Row]
    coverage: list[program.Row]
    cut: shrink.Plan = shrinking.NONE


def settings(config: Any) -> None:
    """Raises a `UserError` for what is wrong whatever the data are."""
    errors.lookup(parallel.PARALLEL, config.parallel, "parallel mode")
    if not config.stages:
        raise errors.UserError("config.stages is empty; name at least one stage")
    for name in config.stages:
        if config.stages.count(name) > 1:
            raise errors.UserError(f"stage {name!r} stands twice in config.stages")
        known = [k for k, v in config.items() if hasattr(v, "objective")]
        if name not in known:
            raise errors.UserError(
                f"stage {name!r} has no settings; {errors.hint(str(name), known)}"
            )
    for key, value, least in (
        ("log_every", config.log_every, 1),
        ("save_every", config.save_every, 1),
        ("steps_per_call", config.steps_per_call, 0),
        ("eval_batch_size", config.eval_batch_size, 1),
        ("seed", config.seed, 0),
        ("fake_quantize.batches", config.fake_quantize.batches, 1),
        ("prune.batches", config.prune.batches, 1),
        ("sparsegpt.batches", config.sparsegpt.batches, 1),
        ("gptq.batches", config.gptq.batches, 1),
        ("adaround.batches", config.adaround.batches, 1),
        ("factorize.batches", config.factorize.batches, 1),
        ("latency.batch_size", config.latency.batch_size, 1),
        ("latency.repeats", config.latency.repeats, 1),
        ("latency.warmup", config.latency.warmup, 0),
    ):
        if value < least:
            raise errors.UserError(f"{key} is at least {least}, got {value}")
    shipping.check(config)
    if config.seed >= 2**31:
        raise errors.UserError(f"seed is below 2**31, got {config.seed}")
    for index, name in enumerate(config.stages):
        _stage(config, index, name)


def _stage(config: Any, index: int, name: str) -> None:
    stage, earlier = config[name], config.stages[:index]
    if stage.start and stage.start not in earlier:
        raise errors.UserError(
            f"{name}.start {stage.start!r} is no earlier stage; "
            f"{errors.hint(stage.start, earlier)}"
        )
    teaching.check(name, stage, earlier)
    caching.check(name, stage)
    starting.check(stage, name)
    if stage.steps < 0:
        raise errors.UserError(f"{name}.steps is at least 0, got {stage.steps}")
    if stage.use not in ("last", "best"):
        raise errors.UserError(f"{name}.use is 'last' or 'best', got {stage.use!r}")
    if stage.use == "best" and not stage.steps:
        raise errors.UserError(f"{name}.use='best' needs steps, got {name}.steps=0")
    if stage.patience < 0 or (stage.patience and stage.use != "best"):
        raise errors.UserError(
            f"{name}.patience is 0 or, with {name}.use='best', validations from 1, got "
            f"{stage.patience} with {name}.use={stage.use!r}"
        )
    preparing.check(config, stage)
    if stage.augment and config.data.kind != "image":
        raise errors.UserError(
            f"{name}.augment: {stage.augment[0]!r} is of images, and data.kind is "
            f"{config.data.kind!r}"
        )
    if not 0 <= stage.ema < 1:
        raise errors.UserError(f"{name}.ema is in [0, 1), got {stage.ema}")
    parallel.check_batch(stage.batch_size)
    activations.rules(config, stage)
    activations.calibration(config.fake_quantize)


def stages(config: Any, data: dataset.Dataset) -> list[Stage]:
    """Returns the stages, each traced on shapes alone; nothing is computed.

    Raises:
      UserError: a model that does not fit the images, a rule that matches nothing, a
        setting out of range, a file of cached logits of other data.
    """
    if data.train.buckets and config.steps_per_call > 1:
        raise errors.UserError(
            "data.text.buckets give each step a length of its own, and texts larger "
            "than data.resident_bytes come a step at a time; steps_per_call is 0 or 1 "
            f"with them, got {config.steps_per_call}"
        )
    caching.look(config, data)
    found: dict[str, Stage] = {}
    shapes: dict[str, Any] = {}
    for index, name in enumerate(config.stages):
        stage = config[name]
        before = found.get(stage.start)
        if starting.has_own_model(stage):
            module, plan = recipe.build_model(stage.model, data.classes), shrinking.NONE
            _reads_tokens(name, module, data)
            larger = before and (before.module, shapes[stage.start], before.cut)
            shapes[name] = starting.outline(config, name, module, data, larger)
        else:
            module, plan = before.module, before.cut
            shapes[name] = shapes[stage.start]
        rules = activations.rules(config, stage)
        apply = models.make_apply(module)
        start = preparing.Prepared(*shapes[name], plan)
        start = preparing.outline(config, stage, apply, start, data.example)
        params, variables = shapes[name] = start.params, start.variables
        network = step.Network(shrinking.resized(apply, start.plan))
        given = scoring.outline(config, stage, network, params, variables, data.example)
        teacher, taught = _teacher(stage, network, found, shapes, data.classes)
        made, chain = recipe.build(
            config,
            stage,
            network,
            teacher,
            data.inputs,
            data.classes,
            given,
            len(data.train),
        )
        taken = transforms.plan(chain.transform, params)
        points = config.fake_quantize.points if rules else "inputs"
        rows = program.coverage(network.apply, rules, points=points)(
            params, variables, data.example, train=False, key=None
        )
        weights = (params, variables, {})
        _objective(made, weights, taught, _batch(stage, data))
        found[name] = Stage(name, index, module, rules, points, taken, rows, start.plan)
        _tell(found[name])
    return list(found.values())


def _teacher(
    stage: Any,
    network: step.Network,
    found: dict[str, Stage],
    shapes: dict[str, Any],
    classes: int,
) -> tuple[teachers.Teacher | None, Any]:
    """Returns who teaches a stage, and shapes of the weights."""
    if teaching.itself(stage):
        return teachers.one(network), None
    if stage.cache:
        return teachers.cached(classes), None
    networks, weights = [], []
    for name in teaching.names(stage):
        apply = models.make_apply(found[name].module)
        networks.append(step.Network(shrinking.resized(apply, found[name].cut)))
        weights.append((*shapes[name], {}))
    return teaching.of(networks, weights)


def _batch(stage: Any, data: dataset.Dataset) -> dict[str, Any]:
    """Returns shapes and dtypes of a batch of one example, as a stage's step has it."""
    batch = {
        "input": data.example,
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((1,), jnp.float32),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    if any(name in augment.MIXINGS for name in stage.augment):
        batch["target"] = jax.ShapeDtypeStruct((1, data.classes), jnp.float32)
    if stage.cache:
        batch |= teacher_cache.shapes(1, stage.cache, data.classes)
    return batch


def _objective(made: step.Recipe, weights: Any, taught: Any, batch: Any) -> None:
    """Raises a `UserError` if a stage's objective does not fit what it is of."""

    def loss(key, weights, taught, batch):
        outputs, _ = made.network(*weights, batch["input"])
        told = None
        if made.teacher is not None:
            told = made.teacher(weights if made.mean_teacher else taught, batch)
        heads = step.fresh_heads(made, key, weights, taught, batch)
        own = (heads,) if heads else ()
        return made.objective(outputs, batch, weights[0], told, *own)

    jax.eval_shape(loss, batch["key"], weights, taught, batch)


def _reads_tokens(name: str, module: Any, data: dataset.Dataset) -> None:
    """Raises a `UserError` unless a model of tokens has a place for each id there is.

    A model says so by fields of these names, as those of `lib.models` do.
    """
    if isinstance(data.inputs, tokens.Tokens):
        named = ("vocabulary", "pad", "separator", "types")
        fields = {k: getattr(module, k) for k in named if hasattr(module, k)}
        data.inputs.fits(f"{name}.model", fields)


def _tell(stage: Stage) -> None:
    """Says which weights and contractions a stage leaves as they are."""
    if any(row.taken_by for row in stage.plan):
        took = sum(bool(row.taken_by) for row in stage.plan)
        left = [row.path for row in stage.plan if not row.taken_by]
        progress.say(
            f"{stage.name}: techniques take {took} of {len(stage.plan)} weights; "
            f"left as they are: {', '.join(left) or 'none'}"
        )
    if stage.rules:
        took = sum(bool(row.operands) for row in stage.coverage)
        left = [f"{r.site} ({r.why})" for r in stage.coverage if not r.operands]
        progress.say(
            f"{stage.name}: activations of {took} of {len(stage.coverage)} "
            f"contractions are rounded; left in float: {', '.join(left) or 'none'}"
        )
