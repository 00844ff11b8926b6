"""A run that leaves its best weights, against single steps written in a loop."""

import jax
import numpy as np
import pytest

from configs import common
from experiments import check, programs, recipe
from lib import errors, models
from lib.train import forms, step


def small(**changes):
    config = common.base(stages=("dense",))
    config.dense = common.stage(
        model=common.model("mlp", widths=(8,), dropout=0.0),
        steps=33,
        learning_rate=0.1,
        use="best",
    )
    config.log_every = config.save_every = 5
    config.dense.update(changes)
    return config


@pytest.fixture(scope="module")
def data():
    return recipe.load_data(small().data)


def by_hand(config, data, seed, rate):
    """(right answers of the best, steps taken) of the run that one would write."""
    stage = config.dense
    stage.learning_rate = rate
    module = recipe.build_model(stage.model, 10)
    network = step.Network(models.make_apply(module))
    made, chain = recipe.build(config, stage, network, None, data.inputs, 10)
    (member,), resident = programs.members(stage, data, [({}, seed)])
    weights = models.init(module, jax.random.key(seed), data.shape)
    state, fixed = step.init(made, *weights, {}), step.Fixed(seed, resident, None)
    parts, held_out = programs.parts(config, "dense", data), programs.held_out(data)
    batch = parts.plain(None, held_out)

    @jax.jit
    def advance(state, rows):
        def take(resident, rows):
            one = {k: v[rows["index"]] for k, v in resident.items()}
            return {**one, "weight": np.ones(len(rows["index"]), np.float32)}

        return step.advance(made, take, state, rows, fixed)[0]

    @jax.jit
    def right(state):
        params = made.transform.decode(step.trained(state), state.codec)
        (logits, _), _ = network(params, state.variables, {}, batch["input"])
        hits = logits.argmax(-1) == batch["label"]
        return (hits * batch["weight"]).sum()

    best, at = -1, 0
    for done in range(1, stage.steps + 1):
        state = advance(state, jax.tree.map(lambda r, i=done: r[i - 1], member.rows))
        if done % 5 and done < stage.steps:
            continue
        found = int(right(state))
        if done >= chain.settled and found >= best:
            best, at = found, done
        if stage.patience and best >= 0 and done - at >= 5 * stage.patience:
            break
    return best, done


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 1])
def test_the_best_is_left_and_patience_ends_a_run(patience, data):
    rates, seeds = (0.003, 0.1, 0.3), (0, 1, 2)
    grid = [({"dense.learning_rate": r}, s) for r, s in zip(rates, seeds, strict=True)]
    config = small(patience=patience)
    members, resident = programs.members(config.dense, data, grid)
    run = programs.run_of(programs.parts(config, "dense", data))
    want = [
        by_hand(small(patience=patience), data, seed, settings["dense.learning_rate"])
        for settings, seed in grid
    ]
    if patience:  # so that some are masked while others go on
        assert len({steps for _, steps in want}) > 1
    for form in ("sequential", "vmapped", "sharded"):
        found = forms.FORMS[form](run)(members, resident, programs.held_out(data))
        assert [int(one.steps) for one in found] == [steps for _, steps in want]
        # Sums in another order: an image on the border may fall on the other side.
        right = [int(one.correct) for one in found]
        np.testing.assert_allclose(right, [best for best, _ in want], atol=1)
        for one, (_, steps) in zip(found, want, strict=True):
            assert (one.losses[:steps] > 0).all() and not one.losses[steps:].any()
            told = programs.told(one, programs.held_out(data))
            assert told["loss"] == one.losses[steps - 1]


def test_what_is_a_number_of_a_program(data):
    config = small()
    values = ("dense.learning_rate", "dense.weight_decay", "dense.model.dropout")
    assert all(programs.traces(config, "dense", data, path) for path in values)
    constants = ("dense.steps", "dense.batch_size", "dense.optimizer", "dense.patience")
    constants += ("dense.model.widths", "data.validation_fraction", "save_every")
    assert not any(programs.traces(config, "dense", data, path) for path in constants)


@pytest.mark.parametrize("change", [{"patience": -1}, {"patience": 2, "use": "last"}])
def test_patience_needs_a_best(change):
    with pytest.raises(errors.UserError, match="is 0 or, with dense.use='best'"):
        check.settings(small(**change))
