"""Whose folder it is, and what of another config is shown."""

import json

import pytest

from configs import common
from experiments import workdir
from lib import errors


def config(**changes):
    made = common.base(stages=("teacher", "pruned"))
    made.update(changes)
    return made


def test_find_writes_nothing_and_claim_does(tmp_path):
    at = workdir.find(tmp_path / "a" / "b", config())
    assert at == tmp_path / "a" / "b" and not (tmp_path / "a").exists()
    assert workdir.claim(at, config()) == at
    written = json.loads((at / "config.json").read_text())
    assert written["stages"] == ["teacher", "pruned"]
    assert written["prune"]["sparsity"] == 0.9
    before = (at / "config.json").stat().st_mtime_ns
    assert workdir.claim(at, config()) == workdir.find(at, config()) == at
    assert (at / "config.json").stat().st_mtime_ns == before


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert workdir.find("run", config()) == tmp_path / "run"


@pytest.mark.parametrize("how", [workdir.find, workdir.claim])
def test_another_config_is_refused(how, tmp_path):
    workdir.claim(tmp_path, config())
    with pytest.raises(errors.UserError) as e:
        how(tmp_path, config(seed=3, stages=("teacher",)))
    assert str(e.value) == (
        f"{tmp_path} holds a run of another config (seed: 0 -> 3; "
        "stages: ['teacher', 'pruned'] -> ['teacher']); "
        "give another --workdir or the same config"
    )
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_differences_table():
    old = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": {"e": None}}
    new = {"a": 1.5, "b": {"c": [1, 2], "d": "y"}, "more": True}
    assert workdir.differences(old, new) == [
        "a: 1 -> 1.5",
        "b.d: x -> y",
        "gone.e: None -> (none)",
        "more: (none) -> True",
    ]
    assert workdir.differences(old, old) == []


@pytest.mark.parametrize("found", [[], 3, None, {"a/b": 1}, {"stages": {"x": {}}}])
def test_whatever_a_damaged_file_holds_differs(found):
    assert workdir.differences(found, {"a": 1})
