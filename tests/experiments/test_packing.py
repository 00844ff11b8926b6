"""What a stage leaves is what it trained, bit for bit, and says what it is of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import packing
from lib import errors, models, program
from lib import transforms as T
from lib.data import inputs
from lib.deploy import artifact
from tests.train import jobs

ABOUT = {
    "model": {"name": "cnn"},
    "classes": 4,
    "shape": [6, 6, 1],
    "data": {"name": "toy"},
    "inputs": inputs.to_label(jobs.NORMALISATION),
    "rules": [[".", {"bits": 8, "symmetric": False}]],
}


@pytest.fixture(scope="module")
def job():
    """A trained job with masks, averages, batch statistics and ranges."""
    module = jobs.cnn()
    params, variables = models.init(module, jax.random.key(0), jobs.SHAPE)
    batches = [(variables, jnp.ones((2, *jobs.SHAPE)))]
    ranges = program.calibrate(
        models.make_apply(module),
        params,
        batches,
        program.minmax(),
        train=False,
        key=None,
    )
    job = jobs.make(
        module,
        transform=T.chain(T.prune(sparsity=0.5), T.quantize(bits=4)),
        rules=packing.network(ABOUT, module).rules,
        ranges=ranges,
        ema=0.5,
    )
    *_, (state, _) = job.steps(3)
    return job._replace(state=state)


@pytest.mark.slow
def test_what_is_loaded_is_what_was_trained(job, tmp_path):
    path = tmp_path / "new" / "stage.pare"
    size = packing.save(path, job.recipe, job.state, ABOUT)
    assert size == path.stat().st_size
    one = packing.load(path)
    state = job.state
    decoded = job.recipe.transform.decode(state.ema, state.codec)
    jobs.same(one.params, jax.device_get(decoded))
    jobs.same(one.variables, jax.device_get(state.variables))
    jobs.same(one.ranges, jax.device_get(state.ranges))
    assert one.about == ABOUT
    assert packing.network(one.about, jobs.cnn()).rules == (
        (".", {"bits": 8, "symmetric": False}),
    )
    assert packing.inputs(one.about) == jobs.NORMALISATION


@pytest.mark.slow
def test_the_file_computes_what_the_state_did(job, tmp_path):
    path = tmp_path / "stage.pare"
    packing.save(path, job.recipe, job.state, ABOUT)
    one, state = packing.load(path), job.state
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, *jobs.SHAPE)))
    network = packing.network(one.about, jobs.cnn())
    (found, _), _ = network(one.params, one.variables, one.ranges, images)
    decoded = job.recipe.transform.decode(state.ema, state.codec)
    (wanted, _), _ = job.recipe.network(decoded, state.variables, state.ranges, images)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_equal_states_give_equal_bytes(job, tmp_path):
    for name in ("a", "b"):
        packing.save(tmp_path / name, job.recipe, job.state, ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_artifact_of_before_there_were_kinds_of_data(tmp_path):
    """Its label had the pixels' mean and deviation as `normalisation`, and no kind."""
    path = tmp_path / "old.pare"
    old = {k: v for k, v in ABOUT.items() if k != "inputs"}
    old["normalisation"] = {"mean": [80.0], "std": [50.0]}
    artifact.save(path, {"params": {"w": np.ones(2, np.float32)}}, old)
    assert packing.inputs(packing.load(path).about) == jobs.NORMALISATION


def test_an_artifact_without_a_label(tmp_path):
    path = tmp_path / "other.pare"
    artifact.save(path, {"params": {"w": np.ones(2, np.float32)}}, {"classes": 3})
    with pytest.raises(errors.UserError) as e:
        packing.load(path)
    assert str(e.value) == (
        f"artifact {path} is not of a run: its label lacks "
        "model, shape, data, inputs, rules"
    )
