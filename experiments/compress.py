"""Trains, compresses, packs and proves a model, stage by stage.

Each stage starts from dense weights (fresh ones, or those of an earlier stage's
artifact), trains through its chain of techniques, and ends as an artifact on disk.
What is on disk is finished: a run that was killed goes on from there.
"""

import pathlib
from typing import Any

from experiments import (
    check,
    coverage,
    proof,
    recipe,
    shipping,
    stage,
    told,
    workdir,
)
from lib.report import metrics, progress, results, table
from lib.train import interrupt


def run(config: Any, workdir_path: str) -> results.Result:
    """Runs the stages that are not finished, measures all, reports; returns results."""
    check.settings(config)
    at = workdir.find(workdir_path, config)
    if (at / results.NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(at, results.read(at))
    data = recipe.load_data(config.data)
    told.say(data)
    stages = check.stages(config, data)
    workdir.claim(at, config)
    coverage.write(at, stages)
    with interrupt.asked_to_stop() as stop, metrics.MetricsWriter(at) as writer:
        for one in stages:
            if not workdir.record_path(at, one.name).exists():
                stage.train(config, data, one, at, writer, stop)
    found = proof.prove(config, at)
    shipped = shipping.of_run(config, at)
    covered = coverage.told(stages[-1])
    of_data = told.plain(data)
    return show(at, proof.report(config, at, found, covered, shipped, of_data))


def show(at: pathlib.Path, result: results.Result) -> results.Result:
    """Prints the table and where the report is."""
    table.show(result)
    shipping.show(result)
    progress.say(f"report: {at / results.PAGE}")
    return result
