"""Who proposes the next trial, and who ends one early: Optuna's, by name."""

import importlib.util
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from experiments.tuning import space, trials, workers
from lib import errors


class Grid(optuna.samplers.BaseSampler):
    """Every combination in turn: the n-th trial has the n-th.

    Optuna's own keeps a record of what was visited, which knows no trial that goes on
    for a dead worker; here the number alone decides, however many workers there are.
    """

    def __init__(self, rows: Sequence[space.Row]):
        """Takes what is searched."""
        self._points = space.grid(rows)

    def infer_relative_search_space(self, study, trial):
        """Returns that nothing is sampled together."""
        return {}

    def sample_relative(self, study, trial, search_space):
        """Returns nothing."""
        return {}

    def sample_independent(self, study, trial, name, distribution):
        """Returns the value of one thing that is searched."""
        return self._points[workers.rank(study.trials, trial.number)][name]


def _gp(**settings: Any) -> optuna.samplers.BaseSampler:
    if importlib.util.find_spec("torch") is None:
        raise errors.UserError(
            "tune.sampler 'gp' needs PyTorch: pip install torch; 'tpe' does not"
        )
    return optuna.samplers.GPSampler(**settings)


# Name -> (seed, the settings of that name) -> a sampler. "grid" is `Grid`.
SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": _gp,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}

# Name -> (the settings of that name) -> a pruner; "steps" are thousandths of a stage.
PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


def sampler(tune: Any, rows: Sequence[space.Row], number: int):
    """Returns the sampler of `config.tune`, seeded for the trial of that number.

    So workers draw different values, and one that is started again repeats none.
    """
    if tune.sampler == "grid":
        return Grid(rows)
    make = errors.lookup({**SAMPLERS, "grid": Grid}, tune.sampler, "sampler of tune")
    seed = zlib.crc32(f"{tune.seed} {number}".encode())
    return make(seed=seed, **tune[tune.sampler].to_dict())


def pruner(tune: Any, stages: int) -> optuna.pruners.BasePruner:
    """Returns the pruner of `config.tune` for runs of that many stages.

    Raises:
      UserError: there is no such pruner, or it has nothing to judge by.
    """
    make = errors.lookup(PRUNERS, tune.pruner, "pruner of tune")
    if tune.pruner == "none":
        return make()
    if tuple(tune.objectives) != (("validation_accuracy", "maximize"),):
        raise errors.UserError(
            f"tune.pruner {tune.pruner!r} judges by validation accuracy as training "
            "goes, so that is the only objective with it"
        )
    settings = tune[tune.pruner].to_dict()
    if tune.pruner == "hyperband":
        settings["max_resource"] = trials.THOUSANDTHS * stages
    return make(**settings)
