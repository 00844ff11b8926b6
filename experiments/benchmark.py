"""Times the training step against a loop written by hand, and against peers."""

import importlib.metadata
import os
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipe, workdir
from experiments.benchmarks import contenders, document, rounds
from lib import errors, files, models
from lib.deploy import measure
from lib.report import progress
from lib.train import loop, step

NAME = "benchmark.json"
PAGE = "BENCHMARKS.md"
CLASSES = 10


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Measures every model of the config; writes and returns `benchmark.json`.

    Leaves `BENCHMARKS.md` beside it, ready to be copied into the repository.
    """
    check(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(at, files.read_json(at / NAME))
    workdir.claim(at, config)
    load = _load()
    measured = []
    for name in config.models:
        measured.append(model(config, name))
        progress.say(f"measured {measured[-1]['title']}")
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": {**environment(), "load": [load, _load()]},
        "models": measured,
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    files.write_text(at / PAGE, document.markdown(result))
    return show(at, result)


def show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints the tables and where the page is."""
    for line in document.text(result).splitlines():
        progress.say(line)
    progress.say(f"page: {at / PAGE}")
    return result


def check(config: Any) -> None:
    """Raises a `UserError` for a config that cannot be measured."""
    for name in config.contenders:
        errors.lookup(contenders.CONTENDERS, name, "contender")
    if "plain" not in config.contenders:
        raise errors.UserError(
            "contenders: 'plain' is what the others are compared with; name it too"
        )
    for key in ("batch_size", "rounds", "warmup", "every"):
        if config[key] < 1:
            raise errors.UserError(f"{key} is at least 1, got {config[key]}")
    if config.examples < config.batch_size:
        raise errors.UserError(
            f"examples is at least batch_size, got {config.examples} "
            f"and {config.batch_size}"
        )
    for name in config.models:
        if name not in config:
            raise errors.UserError(f"model {name!r} has no settings in the config")
        steps = config[name].steps
        if steps < 1 or steps % config.every:
            raise errors.UserError(
                f"{name}.steps is a multiple of every={config.every}, so that each "
                f"round updates the masks equally often; got {steps}"
            )


def model(config: Any, name: str) -> dict[str, Any]:
    """Returns what was measured on one model."""
    settings = config[name]
    rng = np.random.default_rng(config.seed)
    size = (config.examples, *settings.shape)
    data = {
        "input": jnp.asarray(rng.integers(0, 256, size, dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, CLASSES, size[0], dtype=np.int32)),
    }
    module = recipe.build_model(settings.model, CLASSES)
    key = jax.random.key(config.seed)
    params, variables = models.init(module, key, settings.shape)
    example = jax.ShapeDtypeStruct((1, *settings.shape), jnp.float32)
    network = step.Network(models.make_apply(module))
    convolves = loop.has_convolution(network, params, variables, {}, example)
    call = loop.pace(
        steps=settings.steps,
        log=settings.steps,
        save=settings.steps,
        call=config.steps_per_call,
        convolves=convolves,
    ).call
    job = contenders.Job(
        module=module,
        params=params,
        variables=variables,
        data=data,
        settings=config,
        steps=(config.warmup + config.rounds) * settings.steps,
        convolves=convolves,
    )
    field, absent = {}, {}
    for contender in config.contenders:
        try:
            field[contender] = contenders.CONTENDERS[contender](job)
        except contenders.Absent as why:
            absent[contender] = str(why)
    times = rounds.compare(
        field,
        rounds=config.rounds,
        warmup=config.warmup,
        calls=settings.steps // call,
        call=call,
        batch_size=config.batch_size,
        examples=config.examples,
        seed=config.seed,
    )
    return {
        "name": name,
        "title": settings.title,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "steps": settings.steps,
        "steps_per_call": call,
        "rows": [
            row(contender, config.bounds, times, absent)
            for contender in config.contenders
        ],
    }


def row(
    name: str, bounds: Any, times: dict[str, rounds.Times], absent: dict[str, str]
) -> dict[str, Any]:
    """Returns one contender's numbers, as ratios to the plain loops, or why not."""
    if name in absent:
        return {"name": name, "absent": absent[name]}
    mine, plain, stepwise = times[name], times["plain"], times.get("stepwise")
    ratio = stepwise and rounds.spread(mine.wall / stepwise.wall)._asdict()
    return {
        "name": name,
        "absent": "",
        "ms": rounds.spread(mine.wall)._asdict(),
        "ratio": rounds.spread(mine.wall / plain.wall)._asdict(),
        "cpu_ratio": rounds.spread(mine.cpu / plain.cpu)._asdict(),
        "stepwise_ratio": ratio,
        "bound": bounds[name] if name in bounds else None,
        "losses": mine.losses,
    }


def environment() -> dict[str, Any]:
    """Returns the machine, the versions, and the day."""
    versions = {}
    for name in ("optax", "qwix", "aqtp"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        **measure.environment(),
        **versions,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _load() -> float:
    """Returns the load average of the last minute; nan where there is none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
