"""Artifacts as files of other runtimes: written, run over the test split, and timed."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import clocks, packing, recipe, targets, workdir
from lib import errors
from lib.data import dataset, pipeline
from lib.report import progress, runtimes, speed

EXAMPLES = 256  # images that exporters are shown
Entry = dict[str, Any]  # what result.json keeps of an artifact


class Shipped(NamedTuple):
    """The files of some stages.

    Attributes:
      entries: name -> what was measured of the file.
      left_out: name -> why there is no such file.
      verdicts: sentences on what became faster, by how much, and what did not.
      versions: of the packages that ran them.
    """

    entries: dict[str, Entry]
    left_out: dict[str, str]
    verdicts: list[str]
    versions: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """Returns what a result keeps of it."""
        return {
            "artifacts": self.entries,
            "left_out": self.left_out,
            "verdicts": self.verdicts,
        }


class Item(NamedTuple):
    """A file to be."""

    name: str
    target: str
    stage: str
    path: pathlib.Path


def check(config: Any) -> None:
    """Raises a `UserError` for what `config.export` of a run asks in vain."""
    settings = config.export
    targets.check(settings.targets, "config.export.targets")
    for name in (*settings.stages, *filter(None, [settings.whole])):
        errors.lookup(dict.fromkeys(config.stages), name, "stage of config.export")
    check_times(settings)


def check_times(settings: Any) -> None:
    """Raises a `UserError` for what `config.export` cannot time."""
    for key, least in (("threads", 1), ("batch_sizes", 1)):
        if not settings[key] or min(settings[key]) < least:
            raise errors.UserError(
                f"config.export.{key} is numbers of at least {least}, got "
                f"{settings[key]}"
            )
    for key, least in (("repeats", 1), ("warmup", 0)):
        if settings[key] < least:
            raise errors.UserError(
                f"config.export.{key} is at least {least}, got {settings[key]}"
            )
    if min(settings.threads) > clocks.cores():
        raise errors.UserError(
            f"config.export.threads is {settings.threads}, and this process may use "
            f"{clocks.cores()} cores"
        )


def of_run(config: Any, at: pathlib.Path) -> Shipped:
    """Returns the files that `config.export` of a finished run asks for."""
    settings = config.export
    if not settings.targets:
        return Shipped({}, {}, [], {})
    stages = settings.stages or config.stages[-1:]
    whole = settings.whole or workdir.origin(config, stages[-1])
    # What was cut is of interest in float too.
    plain = [s for s in stages if s != whole and not config[s].program]
    wanted = items(at, at / "artifacts", settings, stages, (whole, *plain))
    return ship(at, wanted, settings, config.eval_batch_size)


def items(
    at: pathlib.Path,
    to: pathlib.Path,
    settings: Any,
    stages: Sequence[str],
    floats: Sequence[str],
) -> list[Item]:
    """Returns what to write.

    Files of the last of `stages`, and those in float of the first of `floats`, are
    called as their target, others after their stage too.

    Args:
      at: the folder of the run.
      to: the folder to write to.
      settings: `config.export`.
      stages: that are exported.
      floats: that are exported in float, the one to compare with first.
    """
    found = []
    for name in settings.targets:
        target = targets.TARGETS[name]
        # Those that are exported beside the first round nothing.
        rounds = [s for s in stages if not target.against or s not in floats[1:]]
        for stage in rounds if target.rounded else floats:
            last = stage == (stages[-1] if target.rounded else floats[0])
            path = to / f"{stage}.{target.suffix}"
            if name == "packed":
                path = workdir.artifact_path(at, stage)
            found.append(Item(name if last else f"{name}_{stage}", name, stage, path))
    return found


def ship(
    at: pathlib.Path, wanted: Sequence[Item], settings: Any, eval_batch_size: int
) -> Shipped:
    """Writes files and measures each: bytes, accuracy, agreement with JAX, time.

    Args:
      at: the folder of the run.
      wanted: what to write.
      settings: `config.export`: `batch_sizes`, `threads`, `repeats`, `warmup`.
      eval_batch_size: examples in a batch while accuracy is measured.
    """
    models = {
        stage: targets.load(workdir.artifact_path(at, stage))
        for stage in dict.fromkeys(item.stage for item in wanted)
    }
    about = next(iter(models.values())).packed.about
    data = recipe.load_data(about["data"], packing.inputs(about))
    # Of the training split: exporters may look at them to choose ranges.
    images = data.train.source.gather(np.arange(min(EXAMPLES, len(data.train))))
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for item in wanted:
        target = targets.TARGETS[item.target]
        try:
            target.write(models[item.stage], item.path, images["input"])
            run = target.open(item.path, clocks.cores())
        except (errors.RunError, errors.UserError) as e:
            if item.target != "packed":
                item.path.unlink(missing_ok=True)
            left_out[item.name] = str(e)
            progress.say(f"no {item.path.name}: {e}")
            continue
        logits = models[item.stage].logits(rounded=target.rounded)
        floats, integers = target.contractions(item.path)
        entries[item.name] = {
            "path": str(
                item.path.relative_to(at) if at in item.path.parents else item.path
            ),
            "bytes": item.path.stat().st_size,
            "stage": item.stage,
            "runtime": target.runtime,
            **agreement(run, logits, data, eval_batch_size),
            "float_contractions": floats,
            "integer_contractions": integers,
        }
        if item.target != "packed":  # which the run has left there
            progress.say(f"wrote {item.path}")
    files = {i.name: (i.target, i.path) for i in wanted if i.name in entries}
    timed = _timed(files, data, settings)
    for name, entry in entries.items():
        entry |= timed[name]
    against = {i.name: _against(i) for i in wanted}
    return Shipped(
        entries,
        left_out,
        speed.verdicts(entries, against),
        targets.versions(i.target for i in wanted if i.name in entries),
    )


def _against(item: Item) -> str:
    """Returns the item whose speed it is compared with; "" for none."""
    target = targets.TARGETS[item.target]
    if target.rounded or item.name == item.target:
        return target.against
    return item.target  # floats of what was cut, with those of the whole


def agreement(
    run: targets.Run, logits: targets.Run, data: dataset.Dataset, batch_size: int
) -> Entry:
    """Returns what a file does with the whole test split, beside what JAX does."""
    correct = same = count = 0
    worst = 0.0
    for raw in pipeline.eval_batches(data.test, batch_size):
        kept = raw["weight"] > 0
        found, expected = run(raw["input"]), logits(raw["input"])
        guess = found.argmax(-1)
        correct += int((guess == raw["label"])[kept].sum())
        same += int((guess == expected.argmax(-1))[kept].sum())
        worst = max(worst, float(np.abs(found - expected)[kept].max()))
        count += int(kept.sum())
    return {
        "accuracy": correct / count,
        "same_class_as_jax": same / count,
        "largest_difference_to_jax": worst,
        "count": count,
    }


def _timed(files: clocks.Files, data: dataset.Dataset, settings: Any) -> Any:
    """Returns {name: its times, its memory}."""
    pixels = [
        next(pipeline.eval_batches(data.test, size))["input"]
        for size in settings.batch_sizes
    ]
    progress.say("timing the files in turn, in processes of their own")
    times = clocks.times(
        files,
        pixels,
        threads=settings.threads,
        repeats=settings.repeats,
        warmup=settings.warmup,
    )
    memory = clocks.memory(files, max(pixels, key=len))
    # Not for the column beside the stages' times, which are another runtime's.
    return {
        name: {
            "times_ms": times[name],
            "peak_memory_bytes": memory[name],
            "latency_ms": None,
        }
        for name in files
    }


def show(result: Mapping[str, Any]) -> None:
    """Prints the table and the verdicts of a result, if it has any."""
    artifacts = runtimes.timed(result)
    if artifacts:
        print("\n".join(runtimes.lines(artifacts)))
    for sentence in result.get("verdicts", ()):
        print(sentence)
