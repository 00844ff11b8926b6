"""What a search found: every trial, the front, and the best of it on the test split."""

import pathlib
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from experiments import compress
from experiments.tuning import best, space, workers
from lib import errors
from lib.deploy import measure


class Scope(NamedTuple):
    """Of what a search is.

    Attributes:
      config: of the search.
      base: the config that is searched, with what all trials have.
      fixed: {path: value} of that.
      rows: what is searched of it.
      at: the folder of the search.
    """

    config: Any
    base: Any
    fixed: dict[str, Any]
    rows: Any
    at: pathlib.Path

    @property
    def names(self) -> list[str]:
        """The objectives, in order."""
        return [name for name, _ in self.config.tune.objectives]

    def folder(self, attributes: dict[str, Any], number: int) -> pathlib.Path:
        """Returns where a trial's files are: with its root's."""
        root = attributes[workers.ROOT] if workers.ROOT in attributes else number
        return self.at / "trials" / f"{root:04d}"


def report(
    scope: Scope, study: optuna.Study, total: int, programs: list[str]
) -> dict[str, Any]:
    """Returns what `tune.json` holds, after measuring what is best on the test split.

    Args:
      scope: of what the search is.
      study: whose trials are finished.
      total: how many trials it is of.
      programs: what was chosen for each program of a population, in words.

    Raises:
      UserError: no trial came to its end.
    """
    tune = scope.config.tune
    ended = workers.ended(study, total)
    done = [t for t in ended if t.state == TrialState.COMPLETE]
    if not done:
        why = [t.user_attrs[workers.ERROR] for t in ended if _failed(t)]
        raise errors.UserError(
            f"tune: none of {len(ended)} trials came to its end; the last one that "
            f"failed: {(why or ['none did'])[-1]}"
        )
    on_front = _on_front(tune, done)
    return {
        "experiment": scope.config.experiment,
        "config": scope.config.to_dict(),
        "environment": measure.environment(),
        "objectives": [list(row) for row in tune.objectives],
        "fields": [row.name for row in scope.rows],
        "trials": [_plain(scope, t) for t in ended],
        "front": [t.number for t in on_front],
        "best": [_best(scope, t) for t in on_front[: max(1, tune.best)]],
        "programs": programs,
        "importance": {
            name: importance(study, done, i) for i, name in enumerate(scope.names)
        },
    }


def _on_front(tune: Any, done: list[Any]) -> list[Any]:
    """Returns the trials that no other beats, by the first objective."""
    signs = [-1 if way == "maximize" else 1 for _, way in tune.objectives]
    costs = [tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in done]
    return [done[i] for i in sorted(front(costs), key=lambda i: costs[i])]


def _plain(scope: Scope, trial: Any) -> dict[str, Any]:
    whole = len(trial.params) == len(scope.rows)
    folder = scope.folder(trial.user_attrs, trial.number)
    return {
        "number": trial.number,
        "folder": str(folder.relative_to(scope.at)),
        "state": trial.state.name.lower(),
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "settings": space.settings(trial.params, scope.rows) if whole else {},
        "params": trial.params,
        "last": trial.last_step,
        "why": trial.user_attrs[workers.ERROR] if _failed(trial) else "",
    }


def _best(scope: Scope, trial: Any) -> dict[str, Any]:
    """Measures one trial as a run, and writes its config."""
    tune = scope.config.tune
    settings = space.settings(trial.params, scope.rows)
    told = in_words(dict(zip(scope.names, trial.values, strict=True)))
    folder = scope.folder(trial.user_attrs, trial.number)
    path = best.write(
        scope.at / "best" / f"{folder.name}.py",
        tune.base,
        {**scope.fixed, **settings},
        f"Trial {trial.number} of a search over {tune.base}: {told}.",
    )
    result = compress.run(space.changed(scope.base, settings), str(folder))
    last = result["stages"][-1]
    return {
        "number": trial.number,
        "values": trial.values,
        "settings": settings,
        "config": str(path.relative_to(scope.at)),
        "folder": str(folder.relative_to(scope.at)),
        "test_accuracy": last["metrics"]["accuracy"],
        "validation_accuracy": last["metrics"]["validation_accuracy"],
        "file_bytes": last["size"]["file_bytes"],
        "macs": last["size"]["macs"],
        "count": last["metrics"]["count"],
    }


def front(costs: list[tuple[float, ...]]) -> list[int]:
    """Returns the indices of costs that no other beats in all they have.

    One beats another that is nowhere less and somewhere more; of equal ones the first
    is returned.
    """

    def beaten(i: int) -> bool:
        return any(
            all(a <= b for a, b in zip(other, costs[i], strict=True))
            and (other != costs[i] or j < i)
            for j, other in enumerate(costs)
            if j != i
        )

    return [i for i in range(len(costs)) if not beaten(i)]


def importance(study: optuna.Study, done: list[Any], index: int) -> dict[str, float]:
    """Returns the share of each thing that is searched in what an objective varies by.

    By fANOVA (Hutter et al. 2014); {} for fewer than 4 trials, or equal values.
    """
    if len(done) < 4 or len({t.values[index] for t in done}) < 2:
        return {}
    return optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda t: t.values[index],
    )


def in_words(settings: dict[str, Any]) -> str:
    """Returns "field value, field value"."""
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in settings.items()
    )


def _failed(trial: Any) -> bool:
    return workers.ERROR in trial.user_attrs
