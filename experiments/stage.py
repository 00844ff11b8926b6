"""One stage: trained from where it stands, packed as an artifact."""

import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments import check, packing, recipe, scoring, workdir
from lib import files, models
from lib.data import dataset, pipeline, splits
from lib.report import metrics, progress
from lib.train import checkpoint, evaluate, loop, parallel, step


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
    if settings.start:
        start = packing.load(workdir.artifact_path(at, settings.start))
        params, variables = start.params, start.variables
    else:
        key = jax.random.fold_in(jax.random.key(config.seed), stage.index)
        # Barely optimised: it runs once, and compiling is what takes time.
        fresh = jax.jit(
            models.init,
            static_argnums=(0, 2),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        params, variables = fresh(stage.module, key, data.shape)
    teacher, taught = None, None
    if settings.teacher:
        teacher, taught = network_of(
            packing.load(workdir.artifact_path(at, settings.teacher))
        )
    axis = parallel.AXIS if config.parallel == "pmap" else None
    bound = models.bind_axis(stage.module, axis)
    network = step.Network(models.make_apply(bound), stage.rules)
    ranges = {}
    if stage.rules:
        ranges = recipe.calibrate(
            config, network, params, variables, data, settings.batch_size
        )
    alone = step.Network(models.make_apply(stage.module), stage.rules)
    weights = (params, variables, ranges)
    given = scoring.measure(config, settings, data, alone, weights, teacher, taught)
    made, chain = recipe.build(
        config, settings, network, teacher, data.normalisation, given
    )
    begin = functools.partial(step.init, made)
    if not made.transform.outline:  # else the shapes of the code depend on values
        begin = jax.jit(begin)
    state = begin(params, variables, ranges)
    example = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
    convolves = loop.has_convolution(network, params, variables, ranges, example)
    pace = loop.pace(
        steps=settings.steps,
        log=config.log_every,
        save=config.save_every,
        call=config.steps_per_call,
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
    plain = pipeline.preparation(data.normalisation, None)
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
            fixed=step.Fixed(seed, feed.resident, taught),
            pace=pace,
            parallel_by=config.parallel,
            validate=validate,
            eligible=chain.settled,
            checkpoints=checkpoints,
            log=log,
            stop=stop,
        )
    if settings.use == "best":
        state = checkpoints.best(state).state
    checkpoints.close()
    about = {
        "stage": stage.name,
        "model": settings_of_model(config, stage.name),
        "classes": data.classes,
        "shape": list(data.shape),
        "data": config.data.to_dict(),
        "normalisation": data.normalisation.plain(),
        "rules": [[pattern, dict(kept)] for pattern, kept in stage.rules],
    }
    size = packing.save(workdir.artifact_path(at, stage.name), made, state, about)
    progress.say(f"{stage.name}: packed {size:,} bytes")
    record = {
        "name": stage.name,
        "steps": settings.steps,
        "seconds": time.monotonic() - began,
    }
    files.write_json(workdir.record_path(at, stage.name), record)


def network_of(one: packing.Packed) -> tuple[step.Network, Any]:
    """Returns a finished stage as a network and what it is called with."""
    module = recipe.build_model(one.about["model"], one.about["classes"])
    network = step.Network(models.make_apply(module), packing.rules(one.about))
    return network, (one.params, one.variables, one.ranges)


def settings_of_model(config: Any, name: str) -> dict[str, Any]:
    """Returns the model settings of a stage, or of the stage it starts from."""
    while config[name].start:
        name = config[name].start
    return config[name].model.to_dict()
