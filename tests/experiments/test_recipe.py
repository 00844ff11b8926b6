"""From a config's settings to chains, schedules, rules and ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from experiments import activations, chains, check, recipe
from lib import errors, models, tree
from lib import transforms as T
from lib.data import dataset, normalise, splits
from lib.train import step
from tests.train import jobs

DATA = dataset.Dataset(
    "toy",
    jobs.split(),
    jobs.split(splits.Validation, 16),
    jobs.split(splits.Test, 16),
    jobs.CLASSES,
    jobs.SHAPE,
    jobs.NORMALISATION,
)


def config(**stage):
    made = common.base(stages=("only",))
    made.only.model.widths = (8,)
    made.only.update(stage)
    return made


# steps, end, every -> the update that completes the schedule, plus one
SETTLED = [
    (1000, 0.7, 10, 701),
    (1000, 0.7, 300, 901),
    (1000, 0.0, 10, 11),  # it is at its start at step 0
    (20, 0.7, 5, 16),
    (20, 0.95, 1, 20),
    (20, 0.0, 19, 20),
]


@pytest.mark.parametrize("steps, end, every, settled", SETTLED)
@pytest.mark.slow
def test_settled_is_when_the_schedule_is_done(steps, end, every, settled):
    """Found by following the masks of a run of updates."""
    made = config(steps=steps, transforms=("prune",))
    made.prune.update(dict(end=end, every=every, schedule="linear"))
    chain = chains.build(made, made.only)
    assert chain.settled == settled
    weights = {"kernel": jax.random.normal(jax.random.key(0), (100, 100))}
    code, state = chain.transform.encode(weights)
    update = jax.jit(chain.transform.update)
    removed = []
    for t in range(0, steps, every):
        signals = T.Signals(weights, jnp.int32(t), jax.random.key(0))
        state = update(code, state, signals)
        removed.append(int((~jax.tree.leaves(state)[0]).sum()))
    first = removed.index(9000) * every + 1
    assert first == settled and removed[-1] == 9000


@pytest.mark.parametrize(
    "steps, end, every",
    [(20, 1.0, 1), (20, 0.7, 20), (20, 0.9, 10), (1, 0.0, 1), (5, 0.0, 5)],
)
def test_a_schedule_that_cannot_be_done_in_time(steps, end, every):
    made = config(steps=steps, transforms=("prune",))
    made.prune.update(dict(end=end, every=every))
    with pytest.raises(errors.UserError, match="do not complete sparsity=0.9"):
        chains.build(made, made.only)


@pytest.mark.slow
def test_without_a_schedule_it_prunes_at_once():
    made = config(transforms=("prune", "quantize"))
    made.prune.schedule = ""
    chain = chains.build(made, made.only)
    assert chain.settled == 0
    params = {"kernel": jax.random.normal(jax.random.key(0), (10, 10))}
    decoded = chain.transform.decode(*chain.transform.encode(params))["kernel"]
    assert (decoded == 0).sum() >= 90
    assert all(len(np.unique(column)) <= 15 for column in decoded.T)


def test_no_technique_is_the_identity():
    chain = chains.build(config(), config().only)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
    jobs.same(chain.transform.decode(*chain.transform.encode(params)), params)


def test_rules_hold_the_settings_of_the_activations():
    made = config(program=("fake_quantize",))
    made.fake_quantize.update(dict(bits=6, symmetric=True, pattern="logits"))
    assert activations.rules(made, made.only) == (
        ("logits", {"bits": 6, "symmetric": True}),
    )
    assert activations.rules(config(), config().only) == ()


def test_calibrate_finds_the_extremes_of_the_first_batches():
    made = config(program=("fake_quantize",))
    made.fake_quantize.batches = 3
    module = jobs.mlp()
    params, variables = models.init(module, jax.random.key(0), jobs.SHAPE)
    apply = models.make_apply(module)
    network = step.Network(apply, activations.rules(made, made.only))
    ranges = activations.calibrate(made, network, params, variables, DATA, 8)
    order = np.random.default_rng([0, 0]).permutation(jobs.EXAMPLES)[:24]
    images = (DATA.train.source.fields["input"][order].astype(np.float32) - 80) / 50
    (first, bounds), *_ = ranges.items()
    assert "dense_0" in first and len(ranges) == 2
    np.testing.assert_allclose(bounds["lhs"][0], images.min(), rtol=1e-6)
    np.testing.assert_allclose(bounds["lhs"][1], images.max(), rtol=1e-6)

    made.fake_quantize.pattern = "logits"
    network = step.Network(apply, activations.rules(made, made.only))
    some = activations.calibrate(made, network, params, variables, DATA, 8)
    assert len(some) == 1 and "logits" in next(iter(some))


def test_check_stages_plans_every_stage_on_shapes_alone(capsys):
    made = common.base(stages=("one", "two"))
    made.one.update(dict(steps=20))
    made.one.model.widths = (8,)
    made.two.update(
        dict(
            start="one",
            teacher="one",
            objective=("cross_entropy", "distill"),
            transforms=("prune", "quantize"),
            program=("fake_quantize",),
            steps=20,
        )
    )
    made.prune.every = 5
    check.settings(made)
    one, two = check.stages(made, DATA)
    assert (one.index, two.index) == (0, 1) and two.module == one.module
    taken = {row.path: row.taken_by for row in two.plan}
    assert [bool(how) for how in taken.values()] == [
        path.endswith("kernel") for path in taken
    ]
    assert all("prune" in how and "quantize" in how for how in taken.values() if how)
    assert [row.operands for row in two.coverage] == [("lhs",), ("lhs",)]
    assert capsys.readouterr().out == (
        "two: techniques take 2 of 4 weights; left as they are: "
        "dense_0/bias, logits/bias\n"
        "two: activations of 2 of 2 contractions are rounded; left in float: none\n"
    )


def test_build_normalises_with_what_it_is_given():
    made, _ = recipe.build(
        config(),
        config().only,
        step.Network(models.make_apply(jobs.mlp())),
        None,
        normalise.Normalisation((10.0,), (2.0,)),
        10,
    )
    raw = {"input": np.full((1, *jobs.SHAPE), 14, np.uint8), "label": np.zeros(1)}
    assert np.unique(made.prepare(None, raw)["input"]).tolist() == [2.0]
    assert tree.flatten(made.transform.encode({"a": 1})[0]) == {"a": 1}
