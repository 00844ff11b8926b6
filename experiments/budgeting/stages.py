"""The stages of a budget as configs of their own: the dense one, cuts of it, choices.

A cut removes a share of the channels of the dense stage and learns again; a choice
compresses each layer of one of them by its own strengths.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from experiments import check, stage, workdir
from experiments.budgeting import options
from lib.data import dataset
from lib.report import metrics
from lib.train import interrupt


def dense(config: Any) -> Any:
    """Returns the config of the stage that is compressed, alone."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.stages = (config.budget.dense,)
    return copy


def needed(config: Any) -> Any:
    """Returns the config of the stages that its limits ask for, as they are written."""
    settings, copy = config.budget, dense(config)
    with copy.unlocked():
        copy.stages += (settings.cut,) if settings.milliseconds else ()
        copy.stages += (settings.stage,) if settings.bytes else ()
    return copy


def cut(config: Any, place: int, *, trained: bool) -> tuple[Any, str]:
    """Returns the config whose last stage cuts that share of the channels; its name.

    Args:
      config: of the run.
      place: of the share in `budget.channels`, from 1; 0 cuts nothing, so that the
        dense stage is the last.
      trained: whether it learns again; its time does not depend on it.
    """
    settings, copy = config.budget, dense(config)
    if not place:
        return copy, settings.dense
    name = f"{settings.cut}_{place}" + ("" if trained else "_untrained")
    with copy.unlocked():
        copy[name] = config[settings.cut].copy_and_resolve_references()
        copy.shrink.fraction = settings.channels[place - 1]
        copy.stages = (settings.dense, name)
        if not trained:
            copy[name].update(dict(steps=0, use="last", cache=0))
    return copy, name


def chosen(
    config: Any, place: int, name: str, taken: Mapping[str, options.Strengths]
) -> Any:
    """Returns the config whose last stage, `name`, compresses each layer as chosen.

    A technique that no layer chose is not in the chain: its rules would match nothing.

    Args:
      config: of the run.
      place: of the cut that it starts from, as in `cut`.
      name: of the stage.
      taken: {path: strengths}.
    """
    copy, start = cut(config, place, trained=True)
    rules: dict[str, list[tuple[str, float]]] = {k: [] for k in options.CHAIN}
    for path, strengths in taken.items():
        for strength, value in strengths.items():
            # What rounds a product rounds its factors.
            below = "/[uv]" if strength == "bits" and "rank" in strengths else ""
            given = options.bits_of(value) if strength == "clusters" else value
            rules[strength].append((f"^{re.escape(path)}{below}$", given))
    with copy.unlocked():
        copy[name] = config[config.budget.stage].copy_and_resolve_references()
        copy[name].start = start
        copy[name].transforms = tuple(
            technique for k, technique in options.CHAIN.items() if rules[k]
        )
        copy.stages = (*copy.stages, name)
        for strength, technique in options.CHAIN.items():
            copy[technique].rules = tuple(rules[strength])
        # A rank is given by the rules; nothing else may ask for one.
        copy.factorize.update(dict(energy=0.0, budget=0.0, residual=False))
    return copy


def train(config: Any, data: dataset.Dataset, at: pathlib.Path) -> pathlib.Path:
    """Trains what is not trained yet of the stages; returns the file of the last."""
    with interrupt.asked_to_stop() as stop, metrics.MetricsWriter(at) as writer:
        for part in check.stages(config, data):
            if not workdir.record_path(at, part.name).exists():
                stage.train(config, data, part, at, writer, stop)
    return workdir.artifact_path(at, config.stages[-1])
