"""Folds as one program against folds one by one, and against an ordinary run."""

import json

import jax
import numpy as np
import pytest

from configs import cross_validate as config_file
from experiments import cross_validate, populations, recipe
from lib import errors, models
from lib.data import pipeline, splits, subsets
from lib.train import evaluate, step


def small(**changes):
    config = config_file.get_config("smoke")
    config.dense.model.widths = (8,)
    config.dense.steps = 15
    for key, value in changes.items():
        config.cross_validate[key] = value
    return config


@pytest.mark.slow
def test_folds_side_by_side_are_the_folds_one_by_one(tmp_path, capsys):
    config = small(together=2)
    result = cross_validate.run(config, tmp_path / "two")
    assert json.loads((tmp_path / "two" / cross_validate.NAME).read_text()) == result
    alone = cross_validate.run(small(together=1), tmp_path / "one")
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
