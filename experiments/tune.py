"""Searches the fields of a config for the best run, with Optuna.

A trial is a run of the base config with other values, in a folder of its own, judged on
validation data. The same command, started again and again on any number of machines
with one storage, adds workers to the same study. What is best at the end is measured on
the test split, once, as `run.py` measures any run.
"""

import pathlib
import runpy
import time
from typing import Any

import jax
import optuna
from optuna.trial import TrialState

from experiments import compress, workdir
from experiments.tuning import (
    best,
    populations,
    samplers,
    space,
    studies,
    trials,
    workers,
)
from lib import errors, files
from lib.deploy import measure
from lib.report import progress, results

NAME = "tune.json"
POLL = 1.0  # seconds between two looks at what other workers do
ROOT = pathlib.Path(__file__).parents[1]


class Failed(Exception):
    """A trial that cannot have a value; the study keeps why."""


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Works on the study of `config.tune`; writes and returns `tune.json`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it found")
        return _show(at, files.read_json(at / NAME))
    search = Search(config, at)
    with studies.alone(at, "claim"):
        workdir.claim(at, config)
    search.work()
    with studies.alone(at, "report"):  # one worker measures what is best
        if not (at / NAME).exists():
            files.write_json(at / NAME, search.report())
        result = files.read_json(at / NAME)
        from lib.report import study_page  # matplotlib: not for those who only try

        study_page.write(at, result)
    return _show(at, result)


def base_of(tune: Any) -> Any:
    """Returns the config that is searched, with the values that all trials have.

    Raises:
      UserError: there is no such file, variant or field, or it is no run of stages.
    """
    file, _, variant = tune.base.partition(":")
    path = pathlib.Path(file) if pathlib.Path(file).exists() else ROOT / file
    if not path.is_file():
        raise errors.UserError(f"tune.base: no config file {file!r}")
    try:
        config = runpy.run_path(str(path))["get_config"](variant)
    except LookupError as e:
        raise errors.UserError(f"tune.base {tune.base!r}: {e.args[0]}") from e
    if config.experiment != "compress":
        raise errors.UserError(
            f"tune.base {tune.base!r} is of experiment {config.experiment!r}; "
            "a search is of runs of stages, experiment 'compress'"
        )
    for field, _ in tune.fixed:
        space.field(config, field)
    return space.changed(config, dict(tune.fixed))


def check_shared(tune: Any, base: Any, rows: Any) -> None:
    """Raises a `UserError` unless shared stages are the first, and not searched."""
    shared = tuple(tune.shared)
    if base.stages[: len(shared)] != shared or len(shared) == len(base.stages):
        raise errors.UserError(
            f"tune.shared is the first of the stages {base.stages}, not all of them, "
            f"got {shared}"
        )
    for path in [path for row in rows for path in row.paths]:
        if shared and path.split(".")[0] in (*shared, "data", "stages", "seed"):
            raise errors.UserError(
                f"tune.search: {path} changes a stage that tune.shared has all trials "
                "share"
            )


class Search:
    """A study as one worker sees it."""

    def __init__(self, config: Any, at: pathlib.Path):
        """Checks the config; opens nothing yet."""
        self.config, self.tune, self.at = config, config.tune, at
        trials.check_objectives(self.tune.objectives, studies.DIRECTIONS)
        self.base = base_of(self.tune)
        self.rows = space.rows(self.tune.search, self.base)
        samplers.sampler(self.tune, self.rows, 0)
        steps = sum(self.base[name].steps for name in self.base.stages)
        self.pruner = samplers.pruner(self.tune, steps)
        self.total = self.tune.trials
        if self.tune.sampler == "grid":
            size = len(space.grid(self.rows))
            self.total = min(self.total or size, size)
        if self.total < 1:
            raise errors.UserError(f"tune.trials is at least 1, got {self.total}")
        self.shared = self.at / "shared"
        if self.tune.run:
            self.shared = pathlib.Path(self.tune.run).expanduser()
        check_shared(self.tune, self.base, self.rows)
        if self.tune.population:
            populations.check_config(self.tune, self.base)

    def work(self) -> None:
        """Tries until all trials of the study are finished, by whomever."""
        tune = self.tune
        self.study = studies.opened(self.config, self.at, self.pruner)
        if tune.shared and not tune.run:
            first = space.changed(self.base, {"stages": tuple(tune.shared)})
            with studies.alone(self.at, "share"):
                trials.share(first, self.shared)
        if tune.population:
            self.populations = populations.Populations(
                self.base, self.rows, tune.population
            )
        while True:
            workers.revive(self.study, self.total, tune.stale, tune.tries)
            what = workers.next_step(self.study, self.total, tune.tries)
            if what == "end":
                return
            if what == "wait":
                time.sleep(POLL)
                continue
            if tune.population:
                self._try_many()
                continue
            self._seed(len(self.study.get_trials(deepcopy=False)))
            self.study.optimize(self._try, n_trials=1, catch=(Failed,))
            jax.clear_caches()  # no other trial runs the same program

    def _seed(self, number: int) -> None:
        """Seeds what is drawn for a trial, so that no two workers draw the same."""
        self.study.sampler = samplers.sampler(self.tune, self.rows, number)

    def _try_many(self) -> None:
        """Asks for as many trials as a population has, runs them and tells of them."""
        asked, settings = [], []
        while len(asked) < self.tune.population:
            what = workers.next_step(self.study, self.total, self.tune.tries)
            if what != "try":
                break
            self._seed(len(self.study.get_trials(deepcopy=False)))
            trial = self.study.ask()
            if workers.superfluous(self.study, trial, self.total):
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            self._seed(trial.number)
            settings.append(space.suggested(trial, self.rows))
            asked.append(trial)
        if not asked:
            return
        numbers = f"{asked[0].number} to {asked[-1].number}"
        progress.say(f"trials {numbers}: {len(asked)} side by side")
        began = time.perf_counter()
        with workers.Beat(asked, self.tune.stale):
            found = self.populations.run(settings)
        for trial, one in zip(asked, found, strict=True):
            if isinstance(one, str):
                trial.set_user_attr(workers.ERROR, one)
                self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            else:
                values = [float(one[name]) for name, _ in self.tune.objectives]
                self.study.tell(trial, values, skip_if_finished=True)
        seconds = time.perf_counter() - began
        progress.say(f"trials {numbers}: {seconds:.1f} s")

    def _try(self, trial: optuna.Trial) -> list[float]:
        """Runs one trial; returns its values."""
        if workers.superfluous(self.study, trial, self.total):
            raise Failed
        self._seed(trial.number)
        with workers.Beat([trial], self.tune.stale) as beat:
            settings = space.suggested(trial, self.rows)
            folder = self.folder(trial.user_attrs, trial.number)
            trial.set_user_attr("folder", str(folder.relative_to(self.at)))
            progress.say(f"trial {trial.number}: {_words(settings)}")
            try:
                trials.take(self.shared, self.tune.shared, folder)
                now = space.changed(self.base, settings)
                found = trials.run(now, folder, trial, beat)
            except optuna.TrialPruned:
                progress.say(f"trial {trial.number}: ended early")
                raise
            except (errors.UserError, errors.RunError) as e:
                trial.set_user_attr(workers.ERROR, str(e))
                progress.say(f"trial {trial.number}: failed: {e}")
                raise Failed from e
        values = trials.values(found, self.tune.objectives)
        names = [name for name, _ in self.tune.objectives]
        told = dict(zip(names, values, strict=True))
        progress.say(f"trial {trial.number}: {_words(told)}")
        return values

    def folder(self, attributes: dict[str, Any], number: int) -> pathlib.Path:
        """Returns where a trial's files are: with its root's."""
        root = attributes[workers.ROOT] if workers.ROOT in attributes else number
        return self.at / "trials" / f"{root:04d}"

    def report(self) -> dict[str, Any]:
        """Returns what `tune.json` holds, after measuring what is best on the test."""
        ended = workers.ended(self.study, self.total)
        done = [t for t in ended if t.state == TrialState.COMPLETE]
        if not done:
            why = [t.user_attrs[workers.ERROR] for t in ended if _failed(t)]
            raise errors.UserError(
                f"tune: none of {len(ended)} trials came to its end; the last one "
                f"that failed: {(why or ['none did'])[-1]}"
            )
        names = [name for name, _ in self.tune.objectives]
        on_front = self._front(done)
        return {
            "experiment": self.config.experiment,
            "config": self.config.to_dict(),
            "environment": measure.environment(),
            "objectives": [list(row) for row in self.tune.objectives],
            "fields": [row.name for row in self.rows],
            "trials": [self._plain(t) for t in ended],
            "front": [t.number for t in on_front],
            "best": [self._best(t) for t in on_front[: max(1, self.tune.best)]],
            "programs": self.populations.told if self.tune.population else [],
            "importance": {
                name: importance(self.study, done, i) for i, name in enumerate(names)
            },
        }

    def _front(self, done: list[Any]) -> list[Any]:
        """Returns the trials that no other beats, by the first objective."""
        signs = [-1 if way == "maximize" else 1 for _, way in self.tune.objectives]
        costs = [
            tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in done
        ]
        return [done[i] for i in sorted(front(costs), key=lambda i: costs[i])]

    def _plain(self, trial: Any) -> dict[str, Any]:
        whole = len(trial.params) == len(self.rows)
        return {
            "number": trial.number,
            "folder": str(
                self.folder(trial.user_attrs, trial.number).relative_to(self.at)
            ),
            "state": trial.state.name.lower(),
            "values": trial.values if trial.state == TrialState.COMPLETE else None,
            "settings": space.settings(trial.params, self.rows) if whole else {},
            "params": trial.params,
            "last": trial.last_step,
            "why": trial.user_attrs[workers.ERROR] if _failed(trial) else "",
        }

    def _best(self, trial: Any) -> dict[str, Any]:
        """Measures one trial as a run, and writes its config."""
        settings = space.settings(trial.params, self.rows)
        names = [name for name, _ in self.tune.objectives]
        told = _words(dict(zip(names, trial.values, strict=True)))
        folder = self.folder(trial.user_attrs, trial.number)
        path = best.write(
            self.at / "best" / f"{folder.name}.py",
            self.tune.base,
            {**dict(self.tune.fixed), **settings},
            f"Trial {trial.number} of a search over {self.tune.base}: {told}.",
        )
        result = compress.run(space.changed(self.base, settings), str(folder))
        last = result["stages"][-1]
        return {
            "number": trial.number,
            "values": trial.values,
            "settings": settings,
            "config": str(path.relative_to(self.at)),
            "folder": str(folder.relative_to(self.at)),
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


def _failed(trial: Any) -> bool:
    return workers.ERROR in trial.user_attrs


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in settings.items()
    )


def _show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints what is best and where the report is."""
    for one in result["best"]:
        progress.say(
            f"best: trial {one['number']}: {_words(one['settings'])}; test accuracy "
            f"{one['test_accuracy']:.4f} (n = {one['count']}), validation "
            f"{one['validation_accuracy']:.4f}, {one['file_bytes']:,} bytes; "
            f"{at / one['config']}"
        )
    progress.say(f"report: {at / results.PAGE}")
    return result
