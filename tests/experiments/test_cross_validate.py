"""Folds as one program against folds one by one, and against an ordinary run."""

import itertools
import json

import jax
import numpy as np
import pytest
from sklearn import model_selection

from configs import cross_validate as config_file
from experiments import cross_validate, populations, recipe
from lib import errors, models
from lib.data import pipeline, splits, subsets
from lib.train import evaluate, step


def small(**changes):
    config = config_file.get_config("smoke")
    config.cross_validate.form = "sequential"
    config.dense.model.widths = (8,)
    config.dense.steps = 15
    for key, value in changes.items():
        config.cross_validate[key] = value
    return config


@pytest.mark.slow
def test_folds_side_by_side_are_the_folds_one_by_one(tmp_path, capsys):
    config = small(together=2, form="vmapped")
    result = cross_validate.run(config, tmp_path / "two")
    assert json.loads((tmp_path / "two" / cross_validate.NAME).read_text()) == result
    alone = cross_validate.run(small(form="sequential"), tmp_path / "one")
    data = recipe.load_data(config.data)
    pool = subsets.pool(data, "a test")
    folds = cross_validate.folds_of(config, pool)
    for one, other in zip(result["runs"], alone["runs"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    found, expected = alone["runs"][1], ordinary(config, data, pool, folds[1])
    assert found["examples"] == len(folds[1].held_out) == expected["count"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.005)
    mean = np.mean([one["accuracy"] for one in result["runs"]])
    assert result["summary"]["accuracy"]["mean"] == pytest.approx(mean)
    assert cross_validate.run(config, tmp_path / "two") == result
    assert "is finished" in capsys.readouterr().out


def ordinary(config, data, pool, fold):
    """The fold by a loop over single steps, from a feed of a split of its own."""
    source = data.train.source
    whole = type(source)(pool.fields)
    train = splits.Train("fold", whole.select(fold.train), 10, data.shape)
    held = splits.Validation("fold", whole.select(fold.held_out), 10, data.shape)
    module = recipe.build_model(config.dense.model, 10)
    network = step.Network(models.make_apply(module))
    made, _ = recipe.build(config, config.dense, network, None, data.inputs, 10)
    feed = pipeline.OnDevice(
        train, batch_size=config.dense.batch_size, seed=0, sharding=None
    )
    weights = models.init(module, jax.random.key(0), data.shape)
    state = step.init(made, *weights, {})
    fixed = step.Fixed(np.int32(0), feed.resident, None)
    advance = jax.jit(lambda s, r: step.advance(made, feed.take, s, r, fixed))
    for _ in range(config.dense.steps):
        rows = jax.tree.map(lambda r: r[0], feed.next(1))
        state, _ = advance(state, rows)
    prepare = pipeline.preparation(data.inputs, None)
    measured = evaluate.make(network, prepare, 256)
    return measured(state.code, state.variables, {}, held)


def test_losses_are_those_of_a_softmax():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [30.0, -30.0]], np.float32)
    found = populations.judged(logits, np.array([0, 0, 0]))
    shares = [np.e**2 / (np.e**2 + 1), 1 / (1 + np.e), 1.0]
    assert found["loss"] == pytest.approx(-np.log(shares).mean())
    assert found["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "dens"}, "unknown stage of cross_validate 'dens'"),
        ({"folds": 1}, "at least 2 folds"),
        ({"confidence": 95.0}, "between 0 and 1, got 95"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_compute(changes, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        cross_validate.run(small(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{"weights": "x.npz"}, {"freeze_norm": 0.5}])
def test_what_a_population_would_leave_out_is_refused(change, tmp_path):
    config = small()
    config.dense.update(change)
    with pytest.raises(errors.UserError, match="starts afresh"):
        cross_validate.run(config, tmp_path / "new")


def test_nothing_is_left_to_choose_a_checkpoint_on(tmp_path):
    config = small()
    config.dense.use = "best"
    with pytest.raises(errors.UserError, match="set dense.use='last'"):
        cross_validate.run(config, tmp_path / "new")


@pytest.mark.slow
def test_nested_folds_choose_as_loops_over_loops_do(tmp_path, capsys):
    rates, decays = (1e-4, 2e-2), ("cosine", "linear")
    search = (("dense.learning_rate", rates), ("dense.decay", decays))
    config = small(folds=2, inner=2, search=search, form="vmapped", together=8)
    result = cross_validate.run(config, tmp_path / "run")
    data = recipe.load_data(config.data)
    pool = subsets.pool(data, "a test")
    programs = {}  # whose settings are constants
    for rate, decay in itertools.product(rates, decays):
        now = small()
        now.dense.update({"learning_rate": rate, "decay": decay})
        programs[rate, decay] = populations.Population(now, "dense", data, pool)

    def judged(settings, learnt, held_out):
        runs = [populations.Run(learnt, 0)]
        (said,) = programs[settings].logits(runs, 1, "sequential")
        return populations.judged(said[held_out], pool.label[held_out])

    for fold, choice, one in zip(
        cross_validate.folds_of(config, pool),
        result["choices"],
        result["runs"],
        strict=True,
    ):
        parts = model_selection.StratifiedKFold(2, shuffle=True, random_state=0)
        cut = [*parts.split(fold.train, pool.label[fold.train])]
        accuracy = {
            settings: np.mean(
                [
                    judged(settings, fold.train[a], fold.train[b])["accuracy"]
                    for a, b in cut
                ]
            )
            for settings in programs
        }
        chosen = tuple(choice["settings"].values())
        assert accuracy[chosen] >= max(accuracy.values()) - 0.002  # another order
        assert choice["accuracy"] == pytest.approx(accuracy[chosen], abs=0.002)
        outer = judged(chosen, fold.train, fold.held_out)
        assert one["loss"] == pytest.approx(outer["loss"], rel=1e-3)
    assert "in the inner folds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ((("dense.learning_rat", (1.0, 2.0)),), "'dense.learning_rat'; did you mean"),
        ((("dense.learning_rate", (1.0,)),), "at least 2 values"),
        ((("dense.learning_rate", (1e-3, -1.0)),), "above 0, got -1"),
        ((("data.resident_bytes", (1, 2)),), "no setting of how dense trains"),
    ],
)
def test_a_bad_grid_inside_is_one_line(search, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        cross_validate.run(small(search=search), tmp_path / "new")
    assert not (tmp_path / "new").exists()
