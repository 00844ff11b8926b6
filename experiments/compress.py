"""Trains, compresses, packs and proves a model, stage by stage.

Each stage starts from dense weights (fresh ones, or those of an earlier stage's
artifact), trains through its chain of techniques, and ends as an artifact on disk.
What is on disk is finished: a run that was killed goes on from there.
"""

import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments import check, packing, recipe, workdir
from lib import errors, files, models
from lib.data import dataset, pipeline, splits
from lib.deploy import measure
from lib.report import layers, metrics, progress, results, table
from lib.train import checkpoint, evaluate, interrupt, loop, parallel, step

ROOT = pathlib.Path(__file__).parents[1]


def run(config: Any, workdir_path: str) -> results.Result:
    """Runs the stages that are not finished, measures all, reports; returns results."""
    check.settings(config)
    at = workdir.find(workdir_path, config)
    if (at / results.NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(at, results.read(at))
    data = recipe.load_data(config.data)
    stages = check.stages(config, data)
    workdir.claim(at, config)
    with interrupt.asked_to_stop() as stop, metrics.MetricsWriter(at) as writer:
        for stage in stages:
            if not record_path(at, stage.name).exists():
                train(config, data, stage, at, writer, stop)
    result = report(config, at, prove(config, at), coverage(stages, data))
    return show(at, result)


def show(at: pathlib.Path, result: results.Result) -> results.Result:
    """Prints the table and where the report is."""
    table.show(result)
    progress.say(f"report: {at / results.PAGE}")
    return result


def artifact_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns where a stage's artifact lies."""
    return at / "artifacts" / f"{name}.pare"


def record_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file that tells that a stage is finished."""
    return at / "stages" / f"{name}.json"


def network_of(one: packing.Packed) -> tuple[step.Network, Any]:
    """Returns a finished stage as a network and what it is called with."""
    module = recipe.build_model(one.about["model"], one.about["classes"])
    network = step.Network(models.make_apply(module), packing.rules(one.about))
    return network, (one.params, one.variables, one.ranges)


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
        start = packing.load(artifact_path(at, settings.start))
        params, variables = start.params, start.variables
    else:
        key = jax.random.fold_in(jax.random.key(config.seed), stage.index)
        params, variables = models.init(stage.module, key, data.shape)
    teacher, taught = None, None
    if settings.teacher:
        teacher, taught = network_of(packing.load(artifact_path(at, settings.teacher)))
    axis = parallel.AXIS if config.parallel == "pmap" else None
    bound = models.bind_axis(stage.module, axis)
    network = step.Network(models.make_apply(bound), stage.rules)
    made, chain = recipe.build(config, settings, network, teacher, data.normalisation)
    ranges = {}
    if stage.rules:
        ranges = recipe.calibrate(
            config, network, params, variables, data, settings.batch_size
        )
    state = jax.jit(lambda p, v, r: step.init(made, p, v, r))(params, variables, ranges)
    example = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
    pace = loop.pace(
        steps=settings.steps,
        log=config.log_every,
        save=config.save_every,
        call=config.steps_per_call,
        convolves=loop.has_convolution(network, params, variables, ranges, example),
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
    size = packing.save(artifact_path(at, stage.name), made, state, about)
    progress.say(f"{stage.name}: packed {size:,} bytes")
    record = {
        "name": stage.name,
        "steps": settings.steps,
        "seconds": time.monotonic() - began,
    }
    files.write_json(record_path(at, stage.name), record)


def settings_of_model(config: Any, name: str) -> dict[str, Any]:
    """Returns the model settings of a stage, or of the stage it starts from."""
    while config[name].start:
        name = config[name].start
    return config[name].model.to_dict()


def prove(config: Any, at: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Measures every stage's artifact in a fresh process; returns what it found."""
    paths = {name: str(artifact_path(at, name)) for name in config.stages}
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        f"--config={ROOT / 'configs' / 'evaluate.py'}",
        f"--workdir={at / 'evaluation'}",
        f"--config.paths={tuple(paths.values())!r}",
        f"--config.eval_batch_size={config.eval_batch_size}",
        *(f"--config.latency.{k}={v}" for k, v in config.latency.items()),
    ]
    progress.say("measuring the packed files in a fresh process")
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    from lib.report import html  # noqa: F401  loads matplotlib while the child measures

    try:
        out, err = child.communicate()
    finally:
        child.kill()  # where SIGTERM has ended the wait
    if child.returncode:
        why = "".join((err or out).strip().splitlines()[-1:]).removeprefix("error: ")
        raise errors.UserError(f"the packed files could not be measured: {why}")
    found = files.read_json(at / "evaluation" / "evaluation.json")
    return {name: found[path] for name, path in paths.items()}


def report(
    config: Any,
    at: pathlib.Path,
    found: dict[str, dict[str, Any]],
    covered: dict[str, Any],
) -> results.Result:
    """Writes `result.json` and `report.html` from what was measured."""
    stages = []
    for name in config.stages:
        one = found[name]
        stages.append(
            {
                **files.read_json(record_path(at, name)),
                "metrics": {
                    k: one[k]
                    for k in ("accuracy", "validation_accuracy", "loss", "count")
                },
                "size": {
                    k: one[k] for k in ("params", "nonzero", "file_bytes", "macs")
                },
                "latency_ms": one["latency_ms"],
            }
        )
    last = config.stages[-1]
    one = found[last]
    packed = {
        "path": str(artifact_path(at, last).relative_to(at)),
        "bytes": one["file_bytes"],
        "accuracy": one["accuracy"],
        "latency_ms": one["latency_ms"],
        "size": {k: one[k] for k in ("params", "nonzero", "macs")},
    }
    environment = {**measure.environment(), "seed": config.seed}
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": environment,
        "stages": stages,
        "artifacts": {"packed": packed},
    }
    final = packing.load(artifact_path(at, last))
    origin = last
    while config[origin].start:
        origin = config[origin].start
    before = packing.load(artifact_path(at, origin)).params
    described = layers.describe(final.frozen, before if origin != last else None)
    written = results.write(at, result)
    from lib.report import html  # matplotlib: not for those who only train

    html.write(at, written, metrics.read(at), described, covered)
    return written


def coverage(stages: list[check.Stage], data: dataset.Dataset) -> dict[str, Any]:
    """Returns what took each weight and each contraction of the last stage."""
    last = stages[-1]
    weights = [
        {
            "path": row.path,
            "shape": list(row.shape),
            "taken_by": [row.taken_by] if row.taken_by else [],
        }
        for row in last.plan
    ]
    sites = [
        {
            "site": row.site,
            "operand": ", ".join(row.operands),
            "taken_by": row.rule and f"fake_quantize({row.rule!r})",
            "bits": row.bits,
            "why": row.why,
        }
        for row in last.coverage
    ]
    return {"weights": weights, "sites": sites}
