"""One trial: a run of the base config with other values, judged on validation data.

It has a folder of its own, which holds what `run.py` leaves of a run, so a trial that
was killed goes on from its checkpoint. Its data have no test split at all.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import optuna

from experiments import check, coverage, evaluate, recipe, stage, workdir
from experiments.tuning import workers
from lib import errors, files
from lib.data import dataset
from lib.report import metrics
from lib.train import interrupt

MEASURED = "validation.json"

# What can be an objective -> its number in what is measured of a packed file.
OBJECTIVES: dict[str, Callable[[dict[str, Any]], float]] = {
    "validation_accuracy": lambda found: found["validation_accuracy"],
    "validation_loss": lambda found: found["validation_loss"],
    "file_bytes": lambda found: found["file_bytes"],
    "macs": lambda found: found["macs"],
    "nonzero": lambda found: found["nonzero"],
    # Of a batch of `latency.batch_size`; run one worker a machine, or it measures them.
    "milliseconds": lambda found: found["latency_ms"]["median"],
}
JUDGED = "validation_accuracy"  # what pruners see
THOUSANDTHS = 1000  # of a stage: their unit of time


def without_test(data: dataset.Dataset) -> dataset.Dataset:
    """Returns the data as a trial has them: there is no test split to look at."""
    return data._replace(test=None)


@functools.cache
def _loaded(settings: str) -> dataset.Dataset:
    """Returns the data of those settings, as JSON, read once for all trials."""
    return without_test(recipe.load_data(json.loads(settings)))


def loaded(config: Any) -> dataset.Dataset:
    """Returns the data of a config, without a test split."""
    return _loaded(json.dumps(config.data.to_dict(), sort_keys=True))


class Watched(metrics.MetricsWriter):
    """A writer of metrics whose validations a study sees as they are written.

    It is told in thousandths of a stage: trials whose numbers of steps differ, as those
    of other batch sizes, are compared where they have come as far, and a learning rate
    that decays has decayed as much.

    Attributes:
      prune: whether the study has seen enough.
    """

    def __init__(self, folder: pathlib.Path, trial: optuna.Trial, config: Any):
        """Tells the study what was seen before the run was killed."""
        super().__init__(folder)
        self._trial, self._seen, self.prune = trial, set(), False
        self._stages = tuple(config.stages)
        self._steps = {name: config[name].steps for name in self._stages}
        self._several = len(trial.study.directions) > 1
        for name, records in metrics.read(folder).items():
            for record in records:
                self._tell(name, record["step"], record)

    def write(self, stage, step, metrics):
        """Writes a record; one of a validation is told the study, too."""
        super().write(stage, step, metrics)
        if self._tell(stage, step, metrics) and self._trial.should_prune():
            self.prune = True

    def _tell(self, stage: str, step: int, metrics: Any) -> bool:
        if JUDGED not in metrics or self._several:
            return False
        share = step / max(self._steps[stage], 1)
        now = THOUSANDTHS * self._stages.index(stage) + round(THOUSANDTHS * share)
        if now in self._seen:
            return False
        self._seen.add(now)
        self._trial.report(float(metrics[JUDGED]), now)
        return True


def run(
    config: Any, folder: pathlib.Path, trial: optuna.Trial, beat: workers.Beat
) -> dict[str, Any]:
    """Trains what is not trained yet of a trial; returns what was measured of it.

    Args:
      config: the base with the trial's values.
      folder: the trial's own.
      trial: is told of validations.
      beat: of the worker.

    Raises:
      TrialPruned: the study has seen enough.
      Interrupted: the worker was asked to end, or was held for dead; saved first.
      UserError: values that do not go together.
      NotFinite: training broke.
    """
    if (folder / MEASURED).exists():
        return files.read_json(folder / MEASURED)
    with interrupt.asked_to_stop() as stop:
        own = functools.partial(Watched, trial=trial, config=config)
        writer = []

        def writer_of(folder):
            writer.append(own(folder))
            return writer[0]

        def ends() -> bool:
            return stop() or beat.taken.is_set() or writer[0].prune

        try:
            data = train(config, folder, writer_of, ends)
        except interrupt.Interrupted:
            if stop() or beat.taken.is_set():
                raise
            raise optuna.TrialPruned from None
    path = workdir.artifact_path(folder, config.stages[-1])
    files.write_json(folder / MEASURED, evaluate.alone(path, data, config))
    return files.read_json(folder / MEASURED)


def train(
    config: Any,
    folder: pathlib.Path,
    writer_of: Callable[[pathlib.Path], metrics.MetricsWriter],
    stop: Callable[[], bool],
) -> dataset.Dataset:
    """Trains the stages of a config that are not finished in a folder of its own.

    Args:
      config: of a run.
      folder: of the run.
      writer_of: folder -> who writes the metrics.
      stop: whether to end; see `loop.fit`.

    Returns:
      the data, without a test split.
    """
    check.settings(config)
    data = loaded(config)
    stages = check.stages(config, data)
    workdir.claim(folder, config)
    coverage.write(folder, stages)
    with writer_of(folder) as writer:
        for one in stages:
            if not workdir.record_path(folder, one.name).exists():
                stage.train(config, data, one, folder, writer, stop)
    return data


def values(found: dict[str, Any], objectives: Any) -> list[float]:
    """Returns the value of each objective."""
    return [float(OBJECTIVES[name](found)) for name, _ in objectives]


def check_objectives(objectives: Any, directions: Any) -> None:
    """Raises a `UserError` for objectives that there are none of."""
    if not objectives:
        raise errors.UserError("tune.objectives is empty; name at least one")
    for row in objectives:
        if len(row) != 2 or row[1] not in directions:
            raise errors.UserError(
                "a row of tune.objectives is (what, 'maximize' or 'minimize'), got "
                f"{row!r}"
            )
        errors.lookup(OBJECTIVES, row[0], "objective of tune")
