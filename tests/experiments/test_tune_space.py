"""What a search may change, and what it writes down at the end."""

import itertools
import runpy

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import common, quickstart
from experiments import tune
from experiments.tuning import best, findings, samplers, space
from lib import errors

# Their libraries take seconds to import.
GP, CMAES = (pytest.param(name, marks=pytest.mark.slow) for name in ("gp", "cmaes"))
BASE = quickstart.get_config()
SEARCH = (
    ("prune.sparsity", "float", 0.5, 0.9),
    ("student.learning_rate", "log_float", 1e-4, 1e-2),
    ("student.batch_size", "int", 16, 64, 16),
    ("student.steps", "log_int", 10, 1000),
    ("quantized.transforms", "choice", (("keep", "quantize"), ("quantize",), ())),
    (("student.decay", "student.warmup"), "choice", (("cosine", 0.1), ("linear", 0))),
)


def small(base="configs/quickstart.py", search=SEARCH, **changes):
    return common.tune(base, search, **changes)


def test_every_kind_reaches_its_field():
    rows = space.rows(SEARCH, BASE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        settings = space.suggested(trial, rows)
        assert space.settings(trial.params, rows) == settings
        now = space.changed(BASE, settings)
        assert 0.5 <= now.prune.sparsity <= 0.9
        assert 1e-4 <= now.student.learning_rate <= 1e-2
        assert now.student.batch_size in (16, 32, 48, 64)
        assert now.quantized.transforms in SEARCH[4][2]
        assert (now.student.decay, now.student.warmup) in SEARCH[5][2]
        seen.add(now.quantized.transforms)
        study.tell(trial, 0.0)
    assert seen == set(SEARCH[4][2])
    assert BASE.prune.sparsity == 0.9  # the base stays as it was


def test_a_grid_is_all_there_is():
    search = (
        ("prune.sparsity", "choice", (0.5, 0.9)),
        ("quantize.bits", "int", 2, 8, 3),
        ("pruned.transforms", "choice", (("prune",), ())),
    )
    points = space.grid(space.rows(search, BASE))
    assert [tuple(p.values()) for p in points] == list(
        itertools.product((0.5, 0.9), (2, 5, 8), ("('prune',)", "()"))
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("prune.sparsty", "float", 0, 1), "no field 'prune.sparsty'.*prune.sparsity"),
        (("prune.sparsity", "flat", 0, 1), "unknown kind of range .*'float'"),
        (("prune.sparsity", "float", 1, 0), "low <= high"),
        (("prune.sparsity", "float", 0), "low <= high"),
        (("prune.sparsity", "log_float", 0, 1), "low > 0"),
        (("quantize.bits", "float", 2, 8), "is a whole number"),
        (("quantize.bits", "int", 2, 8.5), "whole numbers"),
        (("quantize.bits", "choice", ()), "has no choices"),
        (("quantize.bits",), "a row of tune.search"),
        ((("prune.sparsity", "quantize.bits"), "choice", ((0.5,),)), "has 2 values"),
    ],
)
def test_a_bad_row_is_one_line(row, message):
    with pytest.raises(errors.UserError, match=message):
        space.rows((row,), BASE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(sampler="tpa"), "unknown sampler of tune 'tpa'; did you mean 'tpe'"),
        (dict(pruner="medium"), "unknown pruner of tune .* did you mean 'median'"),
        (dict(sampler="grid"), "a grid is of kinds"),
        (dict(objectives=()), "objectives is empty"),
        (dict(objectives=(("validation_accuracy", "up"),)), "'maximize' or"),
        (dict(objectives=(("test_accuracy", "maximize"),)), "validation_accuracy"),
        (dict(pruner="asha", objectives=(("macs", "minimize"),)), "only objective"),
        (dict(trials=0), "at least 1"),
        (dict(base="configs/quickest.py"), "no config file"),
        (dict(base="configs/quickstart.py:big"), "unknown variant 'big'"),
        (dict(base="configs/evaluate.py"), "is of experiment 'evaluate'"),
        (dict(fixed=(("seeds", 1),)), "no field 'seeds'; nearest: seed"),
        (dict(shared=("student",)), "is the first of the stages"),
        (dict(shared=("teacher", "student")), "prune|student.learning_rate changes"),
        (dict(search=()), "search is empty"),
        (dict(storage="mysq://x"), "cannot be opened|needs a driver"),
        (dict(storage="oracle://me:secret@x/y"), "'oracle://x/y'"),
    ],
)
def test_a_bad_search_is_one_line_and_leaves_nothing(changes, message, tmp_path):
    config = small(**changes)
    with pytest.raises(errors.UserError, match=message) as told:
        tune.Search(config, tmp_path / "new").work()
    assert "\n" not in str(told.value) and "secret" not in str(told.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "grid", CMAES, GP])
def test_every_sampler_proposes_what_is_searched(name):
    assert name == "grid" or name in samplers.SAMPLERS
    if name == "gp":
        pytest.importorskip("torch", reason="Optuna's Gaussian process is PyTorch's")
    search = (
        ("quantize.bits", "int", 2, 8),
        ("prune.distribution", "choice", ("erk", "global")),
    )
    config = common.tune("configs/quickstart.py", search, sampler=name)
    rows = space.rows(search, BASE)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for number in range(12):
        study.sampler = samplers.sampler(config.tune, rows, number)
        trial = study.ask()
        settings = space.suggested(trial, rows)
        study.tell(trial, settings["quantize.bits"])
    tried = [tuple(t.params.values()) for t in study.trials]
    if name == "grid":
        assert tried == list(itertools.product(range(2, 9), ("erk", "global")))[:12]
    else:
        assert len(set(tried)) > 4


COSTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=10)


@given(COSTS)
def test_the_front_is_what_nobody_beats(costs):
    kept = findings.front(costs)
    for i, one in enumerate(costs):
        better = [o for o in costs if o != one and all(map(int.__le__, o, one))]
        first = costs.index(one) == i
        assert (i in kept) == (first and not better)


@pytest.mark.parametrize("inside", [True, False])
def test_a_best_config_is_the_base_with_its_values(inside, tmp_path):
    base = "configs/quickstart.py:smoke"
    if not inside:
        own = tmp_path / "own.py"
        own.write_text(
            "from configs import quickstart\n"
            "def get_config(arg=''):\n    return quickstart.get_config(arg)\n"
        )
        base = f"{own}:smoke"
    settings = {
        "prune.sparsity": 0.8125,
        "quantized.transforms": ("quantize",),
        "student.model.widths": (32, 16),
    }
    path = best.write(tmp_path / "best" / "0003.py", base, settings, "A trial.")
    found = runpy.run_path(str(path))["get_config"]()
    assert found == space.changed(quickstart.get_config("smoke"), settings)
