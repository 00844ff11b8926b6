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

from experiments import workdir
from experiments.tuning import (
    findings,
    populations,
    samplers,
    shared,
    space,
    studies,
    trials,
    workers,
)
from lib import errors, files
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
            files.write_json(at / NAME, search.found())
        result = files.read_json(at / NAME)
        from lib.report import study_page  # matplotlib: not for those who only try

        study_page.write(at, result)
    return _show(at, result)


def base_of(tune: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the config that is searched, and {path: value} that all trials have.

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
    fixed = dict(tune.fixed)
    for field in fixed:
        space.field(config, field)
    if tune.run and not tune.shared:
        raise errors.UserError("tune.run has the stages of tune.shared, which is empty")
    if tune.run:
        fixed = {**shared.settings(tune.run, tune.shared, config), **fixed}
    return space.changed(config, fixed), fixed


class Search:
    """A study as one worker sees it."""

    def __init__(self, config: Any, at: pathlib.Path):
        """Checks the config and reads the data; opens no study yet."""
        self.config, self.tune, self.at = config, config.tune, at
        trials.check_objectives(self.tune.objectives, studies.DIRECTIONS)
        self.base, fixed = base_of(self.tune)
        self.rows = space.rows(self.tune.search, self.base)
        samplers.sampler(self.tune, self.rows, 0)
        self.pruner = samplers.pruner(self.tune, len(self.base.stages))
        self.total = self.tune.trials
        if self.tune.sampler == "grid":
            size = len(space.grid(self.rows))
            self.total = min(self.total or size, size)
        if self.total < 1:
            raise errors.UserError(f"tune.trials is at least 1, got {self.total}")
        self.shared = self.at / "shared"
        if self.tune.run:
            self.shared = pathlib.Path(self.tune.run).expanduser()
        searched = [path for row in self.rows for path in row.paths]
        shared.check(self.tune.shared, self.base, searched)
        if self.tune.population:
            populations.check_config(self.tune, self.base)
        self.scope = findings.Scope(config, self.base, fixed, self.rows, at)
        if not any(path.startswith("data.") for path in searched):
            trials.loaded(self.base)  # what is not there is told once, not by trials

    def work(self) -> None:
        """Tries until all trials of the study are finished, by whomever."""
        tune = self.tune
        self.study = studies.opened(self.config, self.at, self.pruner)
        if tune.shared and not tune.run:
            first = space.changed(self.base, {"stages": tuple(tune.shared)})
            with studies.alone(self.at, "share"):
                shared.train(first, self.shared)
        if tune.population:
            self.populations = populations.Populations(
                self.base, self.rows, tune.population, tune.form
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

    def found(self) -> dict[str, Any]:
        """Returns what `tune.json` holds; see `findings.report`."""
        told = self.populations.told if self.tune.population else []
        return findings.report(self.scope, self.study, self.total, told)

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
                values = [float(one[name]) for name in self.scope.names]
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
            folder = self.scope.folder(trial.user_attrs, trial.number)
            trial.set_user_attr("folder", str(folder.relative_to(self.at)))
            progress.say(f"trial {trial.number}: {findings.in_words(settings)}")
            try:
                shared.take(self.shared, self.tune.shared, folder)
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
        told = dict(zip(self.scope.names, values, strict=True))
        progress.say(f"trial {trial.number}: {findings.in_words(told)}")
        return values


def _show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints what is best and where the report is."""
    for one in result["best"]:
        settings = findings.in_words(one["settings"])
        progress.say(
            f"best: trial {one['number']}: {settings}; test accuracy "
            f"{one['test_accuracy']:.4f} (n = {one['count']}), validation "
            f"{one['validation_accuracy']:.4f}, {one['file_bytes']:,} bytes; "
            f"{at / one['config']}"
        )
    progress.say(f"report: {at / results.PAGE}")
    return result
