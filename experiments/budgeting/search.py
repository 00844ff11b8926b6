"""What is trained and measured until the budget is met, or known not to be."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments import allocation, finished, packing, workdir
from experiments.budgeting import ladder, options, stages, verdict
from lib.data import dataset, splits
from lib.report import progress

Attempt = dict[str, Any]


class Bench(NamedTuple):
    """What attempts are made with.

    Attributes:
      config: of the run.
      data: of the run.
      at: its folder.
      times: takes the times of a stage's file.
      before: validation accuracy of the dense stage.
    """

    config: Any
    data: dataset.Dataset
    at: pathlib.Path
    times: ladder.Clock
    before: float


def accuracy(path: pathlib.Path, split: splits.Split, config: Any) -> float:
    """Returns the accuracy of a packed file on a whole split, from 0 to 1."""
    logits = finished.logits(packing.load(path), split, config.eval_batch_size)
    return float((logits.argmax(-1) == finished.labels(split)).mean())


def over_cuts(
    start: int, cuts: int, attempts: Callable[[int], list[Attempt]], settings: Any
) -> list[Attempt]:
    """Returns the attempts at one cut after another, until one meets the budget.

    From a cut after which no attempt keeps the points, to the one that cuts less; from
    one whose files are all too slow, to the one that cuts more; never back.

    Args:
      start: place of the first cut.
      cuts: how many there are; with the place 0 nothing is cut.
      attempts: place -> what was measured there.
      settings: `config.budget`.
    """
    tried: list[Attempt] = []
    place, before = start, 0
    while 0 <= place < cuts:
        here = attempts(place)
        tried += here
        kept = [one for one in here if verdict.keeps(one, settings)]
        if any(verdict.meets(one, settings) for one in kept):
            break
        if not kept:
            step = -1
        elif all(verdict.slow(one, settings) for one in kept):
            step = 1
        else:
            break  # fast enough and close enough, but too long
        if not settings.milliseconds or step == -before:
            break
        place, before = place + step, step
    return tried


def at_cut(bench: Bench, place: int) -> tuple[list[Attempt], int | None]:
    """Returns what was measured at a cut, and the bytes of the smallest choice there.

    Without a limit of bytes it is the cut itself, and no bytes are told.
    """
    config, data = bench.config, bench.data
    own, name = stages.cut(config, place, trained=True)
    path = stages.train(own, data, bench.at)
    if not config.budget.bytes:
        return [measured(bench, place, name, {})], None
    split = splits.may_choose(data.validation, "what each layer becomes")
    layers = options.layers_of(config, path, split)
    fronts = options.fronts(layers)

    def attempt(number: int, choice: allocation.Choice) -> Attempt:
        taken = {
            path: strengths[i]
            for (path, strengths), i in zip(
                zip(layers.weights, layers.strengths, strict=True),
                choice.options,
                strict=True,
            )
        }
        stem = config.budget.stage + (f"_{place}" if place else "")
        now = stages.chosen(config, place, f"{stem}_{number}", taken)
        stages.train(now, data, bench.at)
        one = measured(bench, place, now.stages[-1], taken)
        return {**one, "expected_bytes": layers.overhead + choice.bytes}

    tried = over_bytes(fronts, layers.overhead, attempt, config.budget)
    return tried, layers.overhead + fronts[0][0].bytes


def over_bytes(
    fronts: list[list[allocation.Choice]],
    overhead: int,
    attempt: Callable[[int, allocation.Choice], Attempt],
    settings: Any,
) -> list[Attempt]:
    """Returns the attempts at one choice after another, until one meets the budget.

    The first are the cheapest choices that fit, one of each front. Where a file is too
    long, the next have the excess less; where all lost too much, the next have `growth`
    times the bytes, to find the nearest point that loses no more.

    Args:
      fronts: as `options.fronts` returns them.
      overhead: bytes that no choice changes.
      attempt: (number, choice) -> what was measured of it.
      settings: `config.budget`.
    """
    tried: list[Attempt] = []
    seen: set[tuple[int, ...]] = set()
    most = max(choices[-1].bytes for choices in fronts)
    target = settings.bytes - overhead
    while True:
        here: list[tuple[allocation.Choice, Attempt]] = []
        for choices in fronts:
            choice = allocation.within(choices, target) or choices[0]
            if choice.options in seen:
                continue
            if len(tried) == settings.attempts:
                return tried
            seen.add(choice.options)
            tried.append(attempt(len(tried), choice))
            here.append((choice, tried[-1]))
            if verdict.meets(tried[-1], settings):
                return tried
        kept = [pair for pair in here if verdict.keeps(pair[1], settings)]
        if kept:
            choice, one = min(kept, key=lambda pair: pair[1]["bytes"])
            if not verdict.long(one, settings):
                return tried  # too slow, which bytes do not mend
            target = choice.bytes - (one["bytes"] - settings.bytes)
        elif here and target < most:
            target = max(target, *(choice.bytes for choice, _ in here))
            target = min(int(settings.growth * target), most)
        else:
            return tried  # there is nothing else to try


def measured(
    bench: Bench, place: int, name: str, taken: Mapping[str, options.Strengths]
) -> Attempt:
    """Returns what the file of a trained stage takes and lost."""
    config, path = bench.config, workdir.artifact_path(bench.at, name)
    split = splits.may_choose(bench.data.validation, "what each layer becomes")
    found = accuracy(path, split, config)
    one = {
        "stage": name,
        "channels": (0.0, *config.budget.channels)[place],
        "layers": [{"path": p, **strengths} for p, strengths in taken.items()],
        "bytes": path.stat().st_size,
        "latency_ms": bench.times(name) if config.budget.milliseconds else None,
        "validation_accuracy": found,
        "points": 100 * (bench.before - found),
    }
    progress.say(f"{name}: {verdict.told(one)}")
    return one
