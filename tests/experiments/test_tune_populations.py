"""A population's trials are the runs that one would write, whatever they share."""

import jax
import numpy as np
import pytest

from configs import common
from experiments import programs, recipe, tune
from experiments.tuning import populations, space
from lib import errors

FIXED = (
    ("stages", ("dense",)),
    ("dense.steps", 20),
    ("dense.objective", ("cross_entropy", "l2")),
    ("dense.model.widths", (16,)),
)
SEARCH = (
    ("dense.learning_rate", "log_float", 1e-3, 1e-2),
    ("l2.weight", "log_float", 1e-6, 1e-2),
    ("seed", "int", 0, 9),
    ("dense.batch_size", "int", 16, 32, 16),
)


def small(search=SEARCH, fixed=FIXED, **changes):
    settings = dict(population=3, trials=4, best=1, fixed=fixed)
    return common.tune("configs/techniques/prune.py", search, **settings | changes)


def made(search, form="vmapped"):
    config = small(search)
    base, _ = tune.base_of(config.tune)
    rows = space.rows(config.tune.search, base)
    return base, populations.Populations(base, rows, 3, form)


@pytest.mark.slow
def test_a_member_is_the_run_by_itself():
    base, population = made(SEARCH)
    assert population.values == ("dense.learning_rate", "l2.weight", "seed")
    rates, sizes = (1e-3, 3e-3, 1e-2), (16, 32, 16)
    settings = [
        {
            "dense.learning_rate": rate,
            "l2.weight": 1e-3,
            "seed": i,
            "dense.batch_size": size,
        }
        for i, (rate, size) in enumerate(zip(rates, sizes, strict=True))
    ]
    broken = {**settings[0], "dense.batch_size": 0}
    found = population.run([*settings, broken])
    assert isinstance(found.pop(), str)
    assert len(population.told) == 2  # a program for each batch size
    data = recipe.load_data(base.data)
    held_out = programs.held_out(data)
    for one, judged in zip(settings, found, strict=True):
        now = space.changed(base, one)
        (member,), resident = programs.members(now.dense, data, [({}, now.seed)])
        run = programs.run_of(programs.parts(now, "dense", data))
        alone = jax.jit(run)(member, resident, held_out)
        told = programs.told(alone, held_out)
        np.testing.assert_allclose(
            judged["validation_accuracy"], told["accuracy"], atol=2 / 216
        )
        assert abs(judged["nonzero"] - told["nonzero"]) <= 2
    again = population.run(settings)
    assert again == found and len(population.told) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(population=1), "0, or at least 2"),
        (dict(fixed=()), "trains one stage, got .'dense', 'compressed'"),
        (
            dict(form="sharted"),
            "form of a population 'sharted'; did you mean 'sharded'",
        ),
        (dict(fixed=(*FIXED, ("dense.freeze_norm", 0.5))), "starts afresh"),
        (dict(pruner="median"), "pruner is 'none'"),
        (dict(objectives=(("file_bytes", "minimize"),)), "objective of a population"),
    ],
)
def test_what_is_no_population_is_refused(changes, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        tune.Search(small(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_range_of_what_is_compiled_in_is_refused():
    with pytest.raises(errors.UserError, match="clip is a constant of the program"):
        made((("dense.clip", "float", 0.0, 0.5),))
