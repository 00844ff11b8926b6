"""One stage: prepared, trained from where it stands, packed as an artifact."""

import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import (
    activations,
    caching,
    chains,
    check,
    choices,
    packing,
    preparing,
    recipe,
    scoring,
    shrinking,
    starting,
    teaching,
    workdir,
)
from lib import files, models
from lib.data import dataset, inputs, pipeline, splits
from lib.report import metrics, progress
from lib.train import checkpoint, evaluate, loop, parallel, step, teachers


class Start(NamedTuple):
    """What a stage has before its first step.

    Attributes:
      recipe: what is trained, and how.
      chain: its techniques.
      state: before the first step.
      taught: the teacher's weights, or None.
      prepared: what it starts from, with what was cut.
      data: what it trains on; the run's, with what a cache holds of each example.
    """

    recipe: step.Recipe
    chain: chains.Chain
    state: step.State
    taught: Any
    prepared: preparing.Prepared
    data: dataset.Dataset


def train(
    config: Any,
    data: dataset.Dataset,
    stage: check.Stage,
    at: pathlib.Path,
    writer: metrics.MetricsWriter,
    stop: Any,
) -> None:
    """Trains one stage from where it stands, and packs what comes out."""
    began = time.monotonic()
    settings = config[stage.name]
    begun = _start(config, data, stage, at)
    state, steps = begun.state, 0
    if settings.steps:
        state, steps = _fit(config, begun.data, stage, at, begun, writer, stop)
    about = {
        "stage": stage.name,
        "model": settings_of_model(config, stage.name),
        "classes": data.classes,
        "shape": list(data.shape),
        "data": dataset.own(config.data.to_dict()),
        "inputs": inputs.to_label(data.inputs),
        "rules": [[pattern, dict(kept)] for pattern, kept in stage.rules],
        "points": stage.points,
    }
    plan = begun.prepared.plan
    if plan != shrinking.NONE:
        about["cut"] = plan.plain()
    size = packing.save(
        workdir.artifact_path(at, stage.name), begun.recipe, state, about
    )
    progress.say(f"{stage.name}: packed {size:,} bytes")
    record = {
        "name": stage.name,
        "steps": steps,
        "seconds": time.monotonic() - began,
        "metrics": begun.prepared.metrics,
        "cut": list(begun.prepared.cut),
    }
    files.write_json(workdir.record_path(at, stage.name), record)


def _start(
    config: Any, data: dataset.Dataset, stage: check.Stage, at: pathlib.Path
) -> Start:
    """Returns what a stage has before its first step.

    In this order: its weights, preparations, ranges of activations, what techniques
    want measured, the chain's code.
    """
    settings = config[stage.name]
    teacher, taught = _teacher(settings, at)
    if settings.cache:
        data = caching.cached(config, stage.name, data, at, teacher, taught)
        teacher, taught = teachers.cached(data.classes), None
    axis = parallel.AXIS if config.parallel == "pmap" else None
    bound = models.make_apply(models.bind_axis(stage.module, axis))
    # Whatever is measured, is measured on one device.
    single = models.make_apply(stage.module)

    def network_for(apply, plan, rules=stage.rules):
        return step.Network(shrinking.resized(apply, plan), rules, stage.points)

    def scene(now: preparing.Prepared, ranges: Any, rules: Any = stage.rules):
        weights = (now.params, now.variables, ranges)
        alone = network_for(single, now.plan, rules)
        teach = (teacher, taught)
        if teaching.itself(settings):  # the average begins with these weights
            teach = (teachers.one(alone), weights)
        return scoring.scene(config, settings, data, alone, weights, *teach)

    def plainly(now: preparing.Prepared):
        return scene(now, {}, ())  # nothing is calibrated yet

    def rounded(now: preparing.Prepared):
        """Returns the weights as the chain rounds them before it trains."""
        given = scoring.measure(config, settings, plainly(now))
        transform = chains.build(config, settings, given).transform
        return transform.decode(*transform.encode(now.params))

    now = _weights(config, data, stage, at)
    if settings.prepare:
        chosen = choices.Choices(workdir.choices_path(at, stage.name))
        now = preparing.prepare(config, settings, now, plainly, rounded, chosen)
    params, variables = now.params, now.variables
    network = network_for(bound, now.plan)
    ranges = {}
    if stage.rules:
        ranges = activations.calibrate(
            config, network, params, variables, data, settings.batch_size
        )
    given = scoring.measure(config, settings, scene(now, ranges))
    if teaching.itself(settings):
        teacher = teachers.one(network)
    made, chain = recipe.build(
        config,
        settings,
        network,
        teacher,
        data.inputs,
        data.classes,
        given,
        len(data.train),
    )
    heads = step.fresh_heads(
        made,
        scoring.heads_key(config),
        (params, variables, ranges),
        taught,
        {"input": data.example},
    )
    begin = functools.partial(step.init, made)
    if not made.transform.outline:  # else the shapes of the code depend on values
        begin = jax.jit(begin)
    state = begin(params, variables, ranges, heads)
    return Start(made, chain, state, taught, now, data)


def _teacher(settings: Any, at: pathlib.Path) -> tuple[Any, Any]:
    """Returns who teaches a stage, but itself, and the weights."""
    networks, weights = [], []
    for name in teaching.names(settings):
        network, own = network_of(packing.load(workdir.artifact_path(at, name)))
        networks.append(network)
        weights.append(own)
    return teaching.of(networks, weights)


def _weights(
    config: Any, data: dataset.Dataset, stage: check.Stage, at: pathlib.Path
) -> preparing.Prepared:
    """Returns the weights of an earlier stage, with what was cut, or a stage's own."""
    settings = config[stage.name]
    if not starting.has_own_model(settings):
        start = packing.load(workdir.artifact_path(at, settings.start))
        plan = packing.cut(start.about)
        return preparing.Prepared(start.params, start.variables, plan)
    own = starting.weights(config, stage.name, stage.index, stage.module, data, at)
    return preparing.Prepared(*own, shrinking.NONE)


def _fit(
    config: Any,
    data: dataset.Dataset,
    stage: check.Stage,
    at: pathlib.Path,
    begun: Start,
    writer: metrics.MetricsWriter,
    stop: Any,
) -> tuple[step.State, int]:
    """Returns the last state, or the best if that is asked for, and the steps taken."""
    settings = config[stage.name]
    made, state = begun.recipe, begun.state
    network = made.network
    example = data.example
    convolves = loop.has_convolution(
        network,
        jax.eval_shape(made.transform.decode, state.code, state.codec),
        state.variables,
        state.ranges,
        example,
    )
    pace = loop.pace(
        steps=settings.steps,
        log=config.log_every,
        save=config.save_every,
        # The next step may be of another length.
        call=1 if data.train.buckets else config.steps_per_call,
        convolves=convolves,
    )
    if convolves and pace.call == 1 and not config.steps_per_call:
        progress.say(
            f"{stage.name}: one step a call, "
            "as XLA's CPU convolutions are slow inside a scan"
        )
    feed = pipeline.feed(
        data.train,
        batch_size=settings.batch_size,
        seed=config.seed,
        threads=config.data.threads,
        ahead=config.data.ahead,
    )
    seed = jnp.asarray(config.seed, jnp.int32)
    plain = pipeline.preparation(data.inputs, None)
    measured = evaluate.make(network, plain, config.eval_batch_size)
    decode = jax.jit(made.transform.decode)

    chosen_on = splits.may_choose(data.validation, "the best checkpoint")

    def validate(now: step.State) -> dict[str, float]:
        params = decode(step.trained(now), now.codec)
        return measured(params, now.variables, now.ranges, chosen_on)

    checkpoints = checkpoint.Checkpoints(at / "checkpoints" / stage.name, progress.say)
    restored = checkpoints.restore(state)
    first = restored.step if restored else 0
    writer.begin(stage.name, first)
    with progress.Progress(stage.name, settings.steps, first) as bar:

        def log(done: int, values: dict[str, float]) -> None:
            writer.write(stage.name, done, values)
            if "loss" in values:
                bar.update(done, values)

        state = loop.fit(
            recipe=made,
            state=state,
            restored=restored,
            feed=feed,
            fixed=step.Fixed(seed, feed.resident, begun.taught),
            pace=pace,
            parallel_by=config.parallel,
            validate=validate,
            eligible=begun.chain.settled,
            patience=settings.patience,
            checkpoints=checkpoints,
            log=log,
            stop=stop,
        )
    steps = int(state.step)
    if steps < settings.steps:
        progress.say(
            f"{stage.name}: ended after {steps} steps, {settings.patience} validations "
            f"after the best, of step {checkpoints.best_step()}"
        )
    if settings.use == "best":
        state = checkpoints.best(state).state
    checkpoints.close()
    return state, steps


def network_of(one: packing.Packed) -> tuple[step.Network, Any]:
    """Returns a finished stage as a network and what it is called with."""
    module = recipe.build_model(one.about["model"], one.about["classes"])
    network = packing.network(one.about, module)
    return network, (one.params, one.variables, one.ranges)


def settings_of_model(config: Any, name: str) -> dict[str, Any]:
    """Returns the model settings of a stage, or of the stage whose model it has."""
    return config[workdir.origin(config, name)].model.to_dict()
