"""Times the training step on streamed images beside the same on images in memory.

Both take turns in one process, on the same step. Before a turn of the loader, its
queue is emptied by steps that are not timed, so that only what it reads meanwhile
counts; before a turn of the other, it is left to fill its queue, so that it takes
nothing from it.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import recipe, workdir
from experiments.benchmarks import rounds
from lib import errors, files, models
from lib.data import dataset, examples, pipeline
from lib.deploy import measure
from lib.report import progress
from lib.train import parallel, step

NAME = "loader.json"
IDLE = 0.1  # share of a core that a loader with a full queue takes less than


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Measures each model of the config; writes and returns `loader.json`."""
    settings = config.loader
    for key in ("rounds", "steps"):
        if settings[key] < 1:
            raise errors.UserError(f"loader.{key} is at least 1, got {settings[key]}")
    for name in settings.models:
        errors.lookup(settings, name, "model of config.loader")
    at = workdir.claim(workdir_path, config)
    data = recipe.load_data(config.data)
    held = data.train
    if isinstance(
        held.source, examples.Records
    ):  # else it is small, and in memory already
        held = type(held)(held.name, held.source.read(), held.classes, held.shape)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "models": [],
        "environment": measure.environment() | {"load": list(measure.load())},
    }
    for name in settings.models:
        result["models"].append({"name": name, **timed(config, name, data, held)})
        progress.say(line(result["models"][-1], settings.bound))
    files.write_json(pathlib.Path(at) / NAME, result)
    return result


def line(found: dict[str, Any], bound: float) -> str:
    """Returns what was found of one model, in words."""
    share, ms = found["share"], found["ms"]
    return (
        f"{found['name']}: {100 * share['median']:.1f} % of the rate in memory "
        f"({100 * share['low']:.1f} to {100 * share['high']:.1f}, n = {share['n']}; "
        f"aim {100 * bound:.0f} %); {ms['streamed']['median']:.0f} and "
        f"{ms['held']['median']:.0f} ms a step; by CPU time "
        f"{100 * found['cpu_share']['median']:.1f} %"
    )


def timed(config: Any, name: str, data: dataset.Dataset, held: Any) -> dict[str, Any]:
    """Returns milliseconds a step, and the streamed rate as a share of the other."""
    turns = {
        "held": _turn(config, name, data, _held(config, held), idle=0),
        "streamed": _turn(config, name, data, _streamed(config, data.train), idle=1),
    }
    wall: dict[str, list[float]] = {key: [] for key in turns}
    cpu: dict[str, list[float]] = {key: [] for key in turns}
    for number in range(config.loader.rounds + 1):  # one more, in which it compiles
        for key in sorted(turns, reverse=bool(number % 2)):
            took, used = turns[key]()
            if number:
                wall[key].append(took)
                cpu[key].append(used)

    def share(times: dict[str, list[float]]) -> dict[str, Any]:
        ratio = np.divide(times["held"], times["streamed"])
        return rounds.spread(ratio)._asdict()

    return {
        "ms": {k: rounds.spread(np.array(v))._asdict() for k, v in wall.items()},
        "cpu_ms": {k: rounds.spread(np.array(v))._asdict() for k, v in cpu.items()},
        "share": share(wall),
        "cpu_share": share(cpu),
    }


def _held(config: Any, train: Any) -> pipeline.Feed:
    return pipeline.OnDevice(
        train, batch_size=config.timed.batch_size, seed=config.seed, sharding=None
    )


def _streamed(config: Any, train: Any) -> pipeline.Feed:
    return pipeline.Loader(
        train,
        batch_size=config.timed.batch_size,
        seed=config.seed,
        threads=config.data.threads,
        ahead=config.data.ahead,
    )


def _turn(
    config: Any, name: str, data: dataset.Dataset, feed: pipeline.Feed, idle: int
) -> Callable[[], tuple[float, float]]:
    """Returns a function that takes steps and returns milliseconds, and of CPU, each.

    Args:
      config: of the run.
      name: of the model.
      data: the data set.
      feed: of batches.
      idle: 1 for a feed that reads ahead, 0 for another.
    """
    module = recipe.build_model(config.loader[name], data.classes)
    key = jax.random.key(config.seed)
    params, variables = models.init(module, key, data.shape, data.inputs.DTYPE)
    network = step.Network(models.make_apply(module))
    made, _ = recipe.build(
        config, config.timed, network, None, data.inputs, data.classes
    )
    runner = parallel.jit(lambda *args: step.advance(made, feed.take, *args))
    held = runner.put(step.init(made, params, variables, {}))
    fixed = runner.put(step.Fixed(np.int32(config.seed), feed.resident, None))
    untimed = config.data.ahead if idle else 1

    def take(count: int) -> None:
        nonlocal held
        for _ in range(count):
            held, metrics = runner.run(held, feed.next(1), fixed)
        jax.block_until_ready((held, metrics))

    def turn() -> tuple[float, float]:
        take(untimed)
        wall, cpu = time.perf_counter(), time.process_time()
        take(config.loader.steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        while idle and _busy():
            pass
        return 1e3 * wall / config.loader.steps, 1e3 * cpu / config.loader.steps

    return turn


def _busy(seconds: float = 0.2) -> bool:
    """Returns whether this process computes while it waits."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before > IDLE * seconds
