"""Times the training step on streamed images beside the same on images in memory.

Three feeds take turns in one process, on the same step: images that are on the device;
images that a loader reads and decodes for each batch, as in a first epoch; and images
that it has kept, as in all epochs thereafter (`examples.Kept`). Before a turn of a
loader, its queue is emptied by steps that are not timed, so that only what it reads
meanwhile counts; after it, it is left to fill its queue, so that it takes nothing from
the next one's turn.
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
from lib.data import dataset, examples, pipeline, splits
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
    if not isinstance(data.train.source, examples.Records):
        raise errors.UserError(
            "the loader is timed on images on disk: set data.resident_bytes=0 and "
            "data.kept_bytes=0"
        )
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "models": [],
        "environment": measure.environment() | {"load": list(measure.load())},
    }
    for name in settings.models:
        result["models"].append({"name": name, **timed(config, name, data)})
        progress.say(line(result["models"][-1], settings.bound))
    files.write_json(pathlib.Path(at) / NAME, result)
    return result


def line(found: dict[str, Any], bound: float) -> str:
    """Returns what was found of one model, in words."""
    ms = found["ms"]["held"]["median"]
    shares = (
        f"{name} {100 * share['median']:.1f} % ({100 * share['low']:.1f} to "
        f"{100 * share['high']:.1f}; by CPU time "
        f"{100 * found['cpu_share'][name]['median']:.1f})"
        for name, share in found["share"].items()
    )
    return (
        f"{found['name']}, {ms:.0f} ms a step in memory; of that rate: "
        f"{', '.join(shares)}; aim {100 * bound:.0f} %"
    )


def timed(config: Any, name: str, data: dataset.Dataset) -> dict[str, Any]:
    """Returns milliseconds a step, and the streamed rates as shares of the other."""
    turns = {
        kind: _turn(config, name, data, feed(config, data.train))
        for kind, feed in FEEDS.items()
    }
    wall: dict[str, list[float]] = {kind: [] for kind in turns}
    cpu: dict[str, list[float]] = {kind: [] for kind in turns}
    order = list(turns)
    for number in range(config.loader.rounds + 1):  # one more, in which it compiles
        first = number % len(order)
        for kind in order[first:] + order[:first]:
            took, used = turns[kind]()
            if number:
                wall[kind].append(took)
                cpu[kind].append(used)

    def shares(times: dict[str, list[float]]) -> dict[str, Any]:
        return {
            kind: rounds.spread(np.divide(times["held"], times[kind]))._asdict()
            for kind in order
            if kind != "held"
        }

    return {
        "ms": {k: rounds.spread(np.array(v))._asdict() for k, v in wall.items()},
        "cpu_ms": {k: rounds.spread(np.array(v))._asdict() for k, v in cpu.items()},
        "share": shares(wall),
        "cpu_share": shares(cpu),
    }


def _with(train: splits.Train, source: splits.Source) -> splits.Train:
    return splits.Train(train.name, source, train.classes, train.shape)


def _held(config: Any, train: splits.Train) -> pipeline.Feed:
    return pipeline.OnDevice(
        _with(train, train.source.read()),
        batch_size=config.timed.batch_size,
        seed=config.seed,
        sharding=None,
    )


def _decoded(config: Any, train: splits.Train) -> pipeline.Feed:
    return pipeline.Loader(
        train,
        batch_size=config.timed.batch_size,
        seed=config.seed,
        threads=config.data.threads,
        ahead=config.data.ahead,
    )


def _kept(config: Any, train: splits.Train) -> pipeline.Feed:
    source = examples.Kept(train.source)
    source.gather(np.arange(len(source)))
    return _decoded(config, _with(train, source))


FEEDS = {"held": _held, "decoded": _decoded, "kept": _kept}


def _turn(
    config: Any, name: str, data: dataset.Dataset, feed: pipeline.Feed
) -> Callable[[], tuple[float, float]]:
    """Returns a function that takes steps and returns milliseconds, and of CPU, each.

    Args:
      config: of the run.
      name: of the model.
      data: the data set.
      feed: of batches.
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
    ahead = isinstance(feed, pipeline.Loader)
    untimed = config.data.ahead if ahead else 1

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
        while ahead and _busy():
            pass
        return 1e3 * wall / config.loader.steps, 1e3 * cpu / config.loader.steps

    return turn


def _busy(seconds: float = 0.2) -> bool:
    """Returns whether this process computes while it waits."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before > IDLE * seconds
