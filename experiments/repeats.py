"""Stages of a config trained in a folder of their own, and their last file measured.

What an experiment does once for each of its settings and seeds.
"""

import pathlib
from typing import Any

from experiments import check, packing, stage, workdir
from lib.data import dataset, pipeline, splits
from lib.report import metrics
from lib.train import evaluate, interrupt


def train(config: Any, data: dataset.Dataset, at: pathlib.Path) -> None:
    """Trains the stages that are not finished in a folder.

    Args:
      config: of this one run.
      data: that it asks for.
      at: the folder.
    """
    with interrupt.asked_to_stop() as stop, metrics.MetricsWriter(at) as writer:
        for part in check.stages(config, data):
            if not workdir.record_path(at, part.name).exists():
                stage.train(config, data, part, at, writer, stop)


def last(config: Any, at: pathlib.Path) -> pathlib.Path:
    """Returns the packed file of the last stage."""
    return workdir.artifact_path(at, config.stages[-1])


def accuracy(config: Any, split: splits.Split, at: pathlib.Path) -> float:
    """Returns the last file's accuracy on a whole split, from 0 to 1."""
    one = packing.load(last(config, at))
    network, weights = stage.network_of(one)
    prepare = pipeline.preparation(packing.inputs(one.about), None)
    measured = evaluate.make(network, prepare, config.eval_batch_size)
    return measured(*weights, split)["accuracy"]
