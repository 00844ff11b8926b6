"""A search on the stages of a finished run: what they were trained with is kept."""

import runpy
import shutil

import pytest

from configs import common
from configs.techniques import prune
from experiments import tune
from experiments.tuning import shared, space
from lib import errors, files

pytestmark = pytest.mark.slow

BASE = "configs/techniques/prune.py:smoke"
SEARCH = (("compressed.learning_rate", "log_float", 1e-4, 1e-2),)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose data, seed and first stage are not those of the base."""
    folder = tmp_path_factory.mktemp("finished")
    changes = {
        "seed": 3,
        "stages": ("dense",),
        "data.name": "sklearn/wine",
        "data.kind": "table",
        "data.test": "",
        "dense.model.widths": (6,),
        "dense.steps": 7,
        "eval_batch_size": 11,
    }
    shared.train(space.changed(prune.get_config("smoke"), changes), folder)
    return folder


def small(run, **changes):
    settings = dict(shared=("dense",), run=str(run), trials=1, best=1, sampler="random")
    return common.tune(BASE, SEARCH, **settings | changes)


def test_data_seed_and_shared_stages_are_those_of_the_run(finished):
    base, fixed = tune.base_of(small(finished).tune)
    assert fixed == {
        "seed": 3,
        "data.name": "sklearn/wine",
        "data.kind": "table",
        "data.test": "",
        "dense.model.widths": (6,),
        "dense.steps": 7,
    }
    assert base.dense.model.widths == (6,) and base.eval_batch_size != 11


def test_what_is_fixed_comes_after_the_run(finished):
    fixed = (("data.validation_fraction", 0.3), ("data.name", "sklearn/iris"))
    base, found = tune.base_of(small(finished, fixed=fixed).tune)
    assert base.data.name == found["data.name"] == "sklearn/iris"
    assert base.data.validation_fraction == 0.3 and base.seed == 3


def test_the_best_is_a_run_on_the_data_of_the_finished_one(finished, tmp_path):
    found = tune.run(small(finished), str(tmp_path / "search"))
    (trial,) = found["trials"]
    folder = tmp_path / "search" / trial["folder"]
    for kind in ("artifacts/dense.pare", "stages/dense.json"):
        assert (folder / kind).read_bytes() == (finished / kind).read_bytes()
    (best,) = found["best"]
    config = runpy.run_path(str(tmp_path / "search" / best["config"]))["get_config"]()
    assert config.data.name == "sklearn/wine" and config.dense.model.widths == (6,)
    assert best["count"] == 36  # a fifth of the wines; the base has digits


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run / "nowhere", "nowhere holds no run; it has no config.json"),
        (lambda run: (run / "artifacts/dense.pare").unlink(), "'dense' has no file"),
        (lambda run: (run / "stages/dense.json").unlink(), "'dense' has no file"),
    ],
)
def test_a_run_that_is_not_whole_is_told_before_any_trial(
    break_it, message, finished, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    run = break_it(run) or run
    with pytest.raises(errors.UserError, match=message):
        tune.run(small(run), str(tmp_path / "search"))
    assert not (tmp_path / "search").exists()


def test_a_setting_that_the_base_does_not_have_is_told(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = files.read_json(run / "config.json")
    config["data"]["colour"] = "grey"
    files.write_json(run / "config.json", config)
    with pytest.raises(errors.UserError, match="started with data.colour, which"):
        tune.base_of(small(run).tune)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(shared=()), "tune.run has the stages of tune.shared, which is empty"),
        (dict(fixed=(("data.name", "sklearn/whine"),)), "sklearn/wine"),
    ],
)
def test_what_no_trial_can_run_on_is_told_once(changes, message, finished, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        tune.run(small(finished, **changes), str(tmp_path / "search"))
    assert not (tmp_path / "search").exists()
