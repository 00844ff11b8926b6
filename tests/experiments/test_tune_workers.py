"""Workers that come, die and go on: every trial ends once, and none is lost."""

import os
import subprocess
import sys
import time

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from configs import common, quickstart
from experiments.tuning import samplers, space, studies, workers
from lib import errors

optuna.logging.set_verbosity(optuna.logging.ERROR)
STALE = 60.0
SEARCH = (("quantize.bits", "int", 2, 4), ("prune.sparsity", "choice", (0.5, 0.9)))
ROWS = space.rows(SEARCH, quickstart.get_config())
GRID = samplers.Grid(ROWS)


def begin(study):
    """What a worker of another host begins; None if another has begun it as well."""
    trial = study.ask()
    if workers.superfluous(study, trial, 6):
        study.tell(trial, state=TrialState.FAIL)
        return None
    trial.set_user_attr(workers.WORKER, ["another host", 1])
    trial.set_user_attr(workers.BEAT, time.time())
    space.suggested(trial, ROWS)
    return trial


def kill(trial):
    trial.set_user_attr(workers.BEAT, time.time() - 2 * STALE)


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["begin", "end", "kill", "revive"]), max_size=40))
def test_whoever_dies_each_point_of_the_grid_ends_once(moves):
    study = optuna.create_study(sampler=GRID)
    running = []
    for move in moves:
        if move == "begin":
            trial = begin(study)
            running += [trial] if trial else []
        elif move == "revive":
            workers.revive(study, 6, STALE, 1000)
        elif running:
            trial = running.pop(0)
            kill(trial) if move == "kill" else study.tell(trial, 1.0)
    for trial in running:
        study.tell(trial, 1.0)
    while True:
        workers.revive(study, 6, STALE, 1000)
        what = workers.next_step(study, 6, 1000)
        if what == "end":
            break
        assert what == "try"  # nobody is left to wait for
        trial = begin(study)
        if trial:
            study.tell(trial, 1.0)
    ended = workers.ended(study, 6)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert [t.number for t in ended] == [t.number for t in ended if t in complete]
    found = sorted(
        (t.params["quantize.bits"], t.params["prune.sparsity"]) for t in ended
    )
    assert found == [(b, s) for b in (2, 3, 4) for s in (0.5, 0.9)]
    assert len(complete) == 6  # none was tried twice to its end


def test_what_dies_again_and_again_is_given_up():
    study = optuna.create_study(sampler=GRID)
    for _ in range(3):
        workers.revive(study, 1, STALE, 3)
        assert workers.next_step(study, 1, 3) == "try"
        kill(begin(study))
    workers.revive(study, 1, STALE, 3)
    assert workers.next_step(study, 1, 3) == "end"
    (ended,) = workers.ended(study, 1)
    assert ended.number == 0 and ended.state == TrialState.FAIL


def test_who_is_alive():
    study = optuna.create_study()
    trial = study.ask()

    def alive(worker, silent):
        trial.set_user_attr(workers.WORKER, worker)
        trial.set_user_attr(workers.BEAT, 1000.0)
        return workers.alive(study.trials[0], STALE, 1000.0 + silent)

    host = workers.me()[0]
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        gone = child.pid  # of no process any more
    assert alive(["another host", 1], 59) and not alive(["another host", 1], 61)
    assert alive([host, os.getppid()], 59) and not alive([host, os.getppid()], 61)
    assert not alive([host, gone], 0)
    assert not alive([host, os.getpid()], 0)  # asked between trials


def test_one_that_is_signed_by_nobody_is_dead_in_time():
    study = optuna.create_study()
    study.ask()
    began = study.trials[0].datetime_start.timestamp()
    assert workers.alive(study.trials[0], STALE, began + 59)
    assert not workers.alive(study.trials[0], STALE, began + 61)


def test_a_worker_learns_that_its_trial_was_taken():
    study = optuna.create_study()
    trial = study.ask()
    with workers.Beat([trial], 0.06) as beat:
        first = study.trials[0].user_attrs[workers.BEAT]
        deadline = time.monotonic() + 10
        while study.trials[0].user_attrs[workers.BEAT] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        study.tell(trial, state=TrialState.FAIL)
        assert beat.taken.wait(10)


@pytest.mark.parametrize("storage", ["", "sqlite"])
def test_a_study_is_joined_with_the_same_settings_only(storage, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db" if storage else ""
    config = common.tune("configs/quickstart.py", SEARCH, storage=url)
    pruner = optuna.pruners.NopPruner()
    first = studies.opened(config, tmp_path, pruner)
    first.tell(first.ask(), 0.5)
    again = studies.opened(config, tmp_path, pruner)
    assert [t.value for t in again.trials] == [0.5]
    assert again.metric_names == ["validation_accuracy"]
    config.tune.trials = 7
    with pytest.raises(errors.UserError, match="tune.trials: 20 -> 7.*tune.study"):
        studies.opened(config, tmp_path, pruner)
    config.tune.study = "another"
    assert studies.opened(config, tmp_path, pruner).trials == []
