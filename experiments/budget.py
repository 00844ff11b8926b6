"""At most so many bytes and so many points lost: bits and sparsity of each layer.

What each layer costs is read from its sensitivity curves, what it takes from packing
it; a knapsack chooses, the stage is fine-tuned so, and the file that comes out is
measured. All choices look at validation data; the test split is measured at the end,
once, for what was chosen.
"""

import itertools
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments import (
    allocation,
    check,
    finished,
    packing,
    recipe,
    sensitivity,
    stage,
    workdir,
)
from lib import errors, files, transforms, tree
from lib.data import dataset, splits
from lib.deploy import artifact, measure
from lib.report import metrics, progress, rows
from lib.train import interrupt

NAME = "budget.json"


class Layers(NamedTuple):
    """What the knapsack chooses from.

    Attributes:
      weights: {path: weight} of the layers.
      pairs: (sparsity, bits), the options of each layer.
      options: one list a layer, an option a pair.
      overhead: bytes of the file that no choice changes.
    """

    weights: Mapping[str, np.ndarray]
    pairs: list[tuple[float, int]]
    options: list[list[allocation.Option]]
    overhead: int


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Chooses, trains and measures; writes and returns `budget.json`."""
    check_settings(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists():
        progress.say(f"{at} is finished; this is what it found")
        return show(files.read_json(at / NAME))
    data = recipe.load_data(config.data)
    check.stages(config, data)
    workdir.claim(at, config)
    began = time.perf_counter()
    _train(config, data, at)
    dense = workdir.artifact_path(at, config.budget.dense)
    split = splits.may_choose(data.validation, "bits and sparsity")
    before = _accuracy(dense, split, config)
    layers = layers_of(config, dense, split)
    tried = search(config, data, at, layers, before)
    chosen = best(tried, config.budget)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "seconds": time.perf_counter() - began,
        "examples": {"validation": len(split), "test": len(data.test)},
        "dense": {"bytes": dense.stat().st_size, "validation_accuracy": before},
        "smallest": layers.overhead + allocation.front(layers.options)[0].bytes,
        "tried": tried,
        "chosen": chosen,
        "met": meets(tried[chosen], config.budget),
        "test": {
            name: _accuracy(workdir.artifact_path(at, name), data.test, config)
            for name in (config.budget.dense, tried[chosen]["stage"])
        },
    }
    files.write_json(at / NAME, result)
    return show(files.read_json(at / NAME))


def check_settings(config: Any) -> None:
    """Raises a `UserError` for a budget that says nothing, or no options."""
    settings = config.budget
    for name in (settings.dense, settings.stage):
        errors.lookup(dict.fromkeys(config.stages), name, "stage of a budget")
    check.settings(config)
    if settings.bytes < 1 or settings.points < 0 or settings.attempts < 1:
        raise errors.UserError(
            "budget: expected bytes and attempts from 1 and points from 0, got "
            f"{settings.bytes}, {settings.points} and {settings.attempts}"
        )
    if not settings.growth > 1:
        raise errors.UserError(f"budget.growth is above 1, got {settings.growth}")
    own = config[settings.stage]
    if own.start != settings.dense or own.transforms != ("prune", "quantize"):
        raise errors.UserError(
            f"budget: {settings.stage} starts from {settings.dense!r} with transforms "
            f"('prune', 'quantize'), got {own.start!r} with {tuple(own.transforms)}"
        )
    sensitivity.check(_tried(config))


def _tried(config: Any) -> Any:
    """Returns the settings that `sensitivity` takes."""
    settings = config.copy_and_resolve_references()
    with settings.unlocked():
        settings.update(config.budget.sensitivity.to_dict())
        settings.prune = dict(score=config.prune.score, shape=config.prune.shape)
        settings.quantize = {
            k: config.quantize[k] for k in ("symmetric", "granularity", "range")
        }
    return settings


def layers_of(config: Any, dense: pathlib.Path, split: splits.Validation) -> Layers:
    """Returns the layers of the dense stage with what each option takes and costs.

    A pair costs what its sparsity and its bits each add to the validation loss, alone.
    """
    settings, one = _tried(config), packing.load(dense)
    weights = sensitivity.layers_of(one, settings)
    found = sensitivity.measured(one, weights, split, settings)
    base, curves = found["base"]["loss"], found["curves"]
    pairs = [*itertools.product(settings.strengths.sparsity, settings.strengths.bits)]
    options = []
    for row, (path, w) in enumerate(weights.items()):
        added = {
            k: dict(zip(c["strengths"], np.array(c["loss"][row]) - base, strict=True))
            for k, c in curves.items()
        }
        options.append(
            [
                allocation.Option(
                    _bytes(settings, path, w, sparsity, bits),
                    sum(
                        max(0.0, float(x))
                        for x in (added["sparsity"][sparsity], added["bits"][bits])
                    ),
                )
                for sparsity, bits in pairs
            ]
        )
    listed = {row.path: row.nbytes for row in artifact.listing(dense)}
    taken = sum(listed[f"params/{path}"] for path in weights)
    return Layers(weights, pairs, options, dense.stat().st_size - taken)


def _bytes(settings: Any, path: str, w: Any, sparsity: float, bits: int) -> int:
    """Returns what a layer takes in a file, packed so."""
    t = transforms.chain(
        transforms.prune(sparsity=sparsity, pattern=".", **settings.prune),
        transforms.quantize(bits=bits, pattern=".", **settings.quantize),
    )
    frozen = t.freeze(*t.encode(tree.unflatten({path: w})))
    empty = len(artifact.pack({}))
    return len(artifact.pack(frozen)) - empty


def search(
    config: Any,
    data: dataset.Dataset,
    at: pathlib.Path,
    layers: Layers,
    before: float,
) -> list[dict[str, Any]]:
    """Returns what was trained and measured, one entry an attempt.

    The first is the cheapest choice that fits. Where its file is too long, the next has
    the excess less; where it lost too much, the next has `growth` times the bytes, to
    find the nearest point that loses no more.
    """
    settings, tried = config.budget, []
    choices = allocation.front(layers.options)
    target = settings.bytes - layers.overhead
    for attempt in range(settings.attempts):
        choice = allocation.within(choices, target) or choices[0]
        if any(one["options"] == list(choice.options) for one in tried):
            break  # there is nothing else to try
        one = measured(config, data, at, layers, choice, attempt, before)
        tried.append(one)
        if meets(one, settings):
            break
        if one["points"] > settings.points:
            if target == choices[-1].bytes:
                break
            grown = int(settings.growth * max(target, choice.bytes))
            target = min(grown, choices[-1].bytes)
        else:
            target -= one["bytes"] - settings.bytes
    return tried


def measured(
    config: Any,
    data: dataset.Dataset,
    at: pathlib.Path,
    layers: Layers,
    choice: allocation.Choice,
    attempt: int,
    before: float,
) -> dict[str, Any]:
    """Fine-tunes a choice; returns what its file takes and lost."""
    name = f"{config.budget.stage}_{attempt}"
    taken = [layers.pairs[i] for i in choice.options]
    _train(
        with_rules(config, name, dict(zip(layers.weights, taken, strict=True))),
        data,
        at,
    )
    path = workdir.artifact_path(at, name)
    split = splits.may_choose(data.validation, "bits and sparsity")
    accuracy = _accuracy(path, split, config)
    one = {
        "stage": name,
        "options": list(choice.options),
        "layers": [
            {"path": p, "sparsity": s, "bits": b}
            for p, (s, b) in zip(layers.weights, taken, strict=True)
        ],
        "expected_bytes": layers.overhead + choice.bytes,
        "bytes": path.stat().st_size,
        "validation_accuracy": accuracy,
        "points": 100 * (before - accuracy),
    }
    progress.say(f"{name}: {one['bytes']:,} bytes, {lost(one['points'])}")
    return one


def with_rules(config: Any, name: str, taken: Mapping[str, tuple[float, int]]) -> Any:
    """Returns the config whose stage `name` compresses each layer as chosen."""
    copy = config.copy_and_resolve_references()
    aimed = {f"^{re.escape(path)}$": pair for path, pair in taken.items()}
    with copy.unlocked():
        copy[name] = copy[config.budget.stage]
        copy.stages = (config.budget.dense, name)
        copy.prune.rules = tuple((p, s) for p, (s, _) in aimed.items())
        copy.quantize.rules = tuple((p, b) for p, (_, b) in aimed.items())
    return copy


def _train(config: Any, data: dataset.Dataset, at: pathlib.Path) -> None:
    """Trains what is not trained yet of the stages, but the one with no choice yet."""
    wanted = [name for name in config.stages if name != config.budget.stage]
    with interrupt.asked_to_stop() as stop, metrics.MetricsWriter(at) as writer:
        for part in check.stages(config, data):
            done = workdir.record_path(at, part.name).exists()
            if part.name in wanted and not done:
                stage.train(config, data, part, at, writer, stop)


def _accuracy(path: pathlib.Path, split: splits.Split, config: Any) -> float:
    """Returns the accuracy of a packed file on a whole split."""
    logits = finished.logits(packing.load(path), split, config.eval_batch_size)
    return float((logits.argmax(-1) == finished.labels(split)).mean())


def meets(one: Mapping[str, Any], settings: Any) -> bool:
    """Returns whether an attempt keeps both limits, to the last digit."""
    return one["bytes"] <= settings.bytes and one["points"] <= settings.points + 1e-9


def best(tried: list[dict[str, Any]], settings: Any) -> int:
    """Returns the place of the attempt that meets the budget, or of the nearest.

    The nearest is the smallest that loses no more than it may; where none is, the one
    that loses least.
    """
    keep = [i for i, one in enumerate(tried) if one["points"] <= settings.points + 1e-9]
    if keep:
        return min(keep, key=lambda i: tried[i]["bytes"])
    return min(range(len(tried)), key=lambda i: (tried[i]["points"], i))


def lost(points: float) -> str:
    """Returns points lost, or gained where they are below 0, in words."""
    return f"{abs(points):.2f} points {'gained' if points < 0 else 'lost'}"


def verdict(result: Mapping[str, Any]) -> str:
    """Returns whether the budget was met, and else what is nearest, in a sentence."""
    settings = result["config"]["budget"]
    limits = f"{settings['bytes']:,} bytes and {settings['points']:g} points"
    one = result["tried"][result["chosen"]]
    found = f"{one['bytes']:,} bytes, {lost(one['points'])} in validation"
    if result["met"]:
        return f"met: {found}, of at most {limits}"
    why = ""
    if result["smallest"] > settings["bytes"]:
        why = f"even the smallest choice takes about {result['smallest']:,} bytes; "
    fits = [t for t in result["tried"] if t["bytes"] <= settings["bytes"]]
    if fits:
        least = min(t["points"] for t in fits)
        why += f"the best of what fits has {lost(least)}; "
    return f"not met, at most {limits}: {why}the nearest point is {found}"


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the choice layer by layer, and the verdict."""
    one = result["tried"][result["chosen"]]
    lines = [["layer", "sparsity", "bits"]]
    for layer in one["layers"]:
        lines.append([layer["path"], f"{layer['sparsity']:g}", str(layer["bits"])])
    progress.say(rows.text(lines))
    progress.say(verdict(result))
    dense, small = result["test"].values()
    progress.say(
        f"test accuracy: {100 * dense:.2f} % dense, {100 * small:.2f} % at "
        f"{one['bytes']:,} of {result['dense']['bytes']:,} bytes"
    )
    return result
