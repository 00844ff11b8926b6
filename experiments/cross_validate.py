"""Repeated k-fold cross-validation of one stage; all folds are one program.

With `search` it is nested: each fold chooses its own settings, by folds inside it. Over
training and validation examples; the test split is not touched. What makes inputs of
stored examples stays fitted to the training split, as in every run of the config.
"""

import time
from typing import Any

import numpy as np

from experiments import check, nested, populations, recipe, workdir
from lib import errors, files
from lib.data import subsets
from lib.deploy import measure
from lib.diagnosis import intervals
from lib.report import progress, rows

NAME = "cross_validation.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Trains every fold; writes and returns `cross_validation.json`."""
    settings = config.cross_validate
    check.settings(config)
    populations.check(config, settings, "cross_validate")
    nested.check(config, settings)
    intervals.level(settings.confidence)
    if config.data.kind == "table" and config.data.table.select:
        raise errors.UserError(
            "cross_validate: data.table.select chose features by the labels of what is "
            "held out here; clear it"
        )
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(files.read_json(at / NAME))
    data = recipe.load_data(config.data)
    pool = subsets.pool(data, "cross-validation")
    folds = folds_of(config, pool)
    workdir.claim(at, config)
    began = time.perf_counter()
    trained = nested.Programs(config, data, pool)
    choices = nested.choose(config, trained, folds, pool) if settings.search else []
    own = [one.settings for one in choices] or [{}] * len(folds)
    logits = trained.logits(
        [
            populations.Run(fold.train, config.seed + fold.repeat, one)
            for fold, one in zip(folds, own, strict=True)
        ]
    )
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "seconds": time.perf_counter() - began,
        "examples": len(pool.label),
        "runs": [
            judged(fold, said, pool) for fold, said in zip(folds, logits, strict=True)
        ],
        "choices": [one._asdict() for one in choices],
    }
    result["summary"] = summary(result["runs"], settings.confidence)
    files.write_json(at / NAME, result)
    return show(files.read_json(at / NAME))


def folds_of(config: Any, pool: subsets.Pool) -> list[subsets.Fold]:
    """Returns the folds that the config asks for."""
    settings = config.cross_validate
    return subsets.folds(
        pool.label,
        count=settings.folds,
        repeats=settings.repeats,
        stratified=settings.stratified,
        seed=config.seed,
    )


def judged(
    fold: subsets.Fold, logits: np.ndarray, pool: subsets.Pool
) -> dict[str, Any]:
    """Returns one fold's accuracy and loss, on what it learnt from and held out."""
    train, held_out = (
        populations.judged(logits[part], pool.label[part])
        for part in (fold.train, fold.held_out)
    )
    return {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "examples": len(fold.held_out),
        "accuracy": held_out["accuracy"],
        "loss": held_out["loss"],
        "train_examples": len(fold.train),
        "train_accuracy": train["accuracy"],
        "train_loss": train["loss"],
    }


def summary(runs: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    """Returns {"accuracy" and "loss" held out, "train_...": mean, spread, interval}."""
    sizes = {
        "held_out": float(np.mean([one["examples"] for one in runs])),
        "train": float(np.mean([one["train_examples"] for one in runs])),
    }
    return {
        key: intervals.of_folds(
            np.array([one[key] for one in runs]), **sizes, confidence=confidence
        )._asdict()
        for key in ("accuracy", "loss", "train_accuracy", "train_loss")
    }


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints a line a fold and the summary."""
    lines = [["repeat", "fold", "examples", "accuracy %", "loss", "train %"]]
    for one in result["runs"]:
        lines.append(
            [
                *(str(one[k]) for k in ("repeat", "fold", "examples")),
                f"{100 * one['accuracy']:.2f}",
                f"{one['loss']:.4f}",
                f"{100 * one['train_accuracy']:.2f}",
            ]
        )
    progress.say(rows.text(lines))
    for one, choice in zip(result["runs"], result["choices"], strict=False):
        told = ", ".join(f"{k} {v}" for k, v in choice["settings"].items())
        progress.say(
            f"repeat {one['repeat']}, fold {one['fold']}: {told}; "
            f"{100 * choice['accuracy']:.2f} % in the inner folds"
        )
    settings, found = result["config"]["cross_validate"], result["summary"]["accuracy"]
    mean, spread, low, high = (
        100 * found[k] for k in ("mean", "spread", "low", "high")
    )
    progress.say(
        f"accuracy held out: {mean:.2f} %, spread {spread:.2f} points, "
        f"{100 * settings['confidence']:g} % interval {low:.2f} to {high:.2f} % "
        f"({settings['folds']} folds, {settings['repeats']} times, "
        f"{result['examples']} examples, {result['seconds']:.1f} s)"
    )
    return result
