"""Settings of quantization-aware training: rules, ranges, what begins when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import activations, chains, packing
from lib import errors, models, program
from lib import transforms as T
from lib.train import step
from tests.configs.test_common import load
from tests.experiments.test_recipe import DATA, config
from tests.train import jobs

LSQ = "configs/techniques/lsq.py"


def test_plain_settings_make_the_plain_rule():
    made = config(program=("fake_quantize",))
    plain = {"bits": 8, "symmetric": False}
    assert activations.rules(made, made.only) == ((".", plain),)
    assert activations.rounding(made, made.only) == step.Rounding()
    assert activations.freeze_norm(made.only) is None


def test_the_first_and_last_layer_have_bits_of_their_own():
    made = load(LSQ, "bits3")
    (ends, eight), (rest, three) = activations.rules(made, made.compressed)
    assert (eight["bits"], three["bits"], rest) == (8, 3, ".")
    assert three["learn"] == "lsq" and "range" not in three
    names = ["CNN/conv_0_0", "CNN/conv_0_1", "CNN/conv_1_0", "CNN/logits"]
    bits = [program.settings_of(name, ((ends, eight), (rest, three))) for name in names]
    assert [kept["bits"] for kept in bits] == [8, 3, 3, 8]
    kernels = {n.split("/")[1]: {"kernel": jnp.ones((2, 2))} for n in names}
    plan = T.plan(chains.build(made, made.compressed).transform, kernels)
    assert [f"bits={n}" in row.taken_by for row, n in zip(plan, "8338", strict=True)]
    assert all("bits=" in row.taken_by for row in plan)


def test_what_was_learned_is_settled_in_the_artifact():
    made = load(LSQ)
    rules = activations.rules(made, made.compressed)
    about = {"rules": [[pattern, dict(kept)] for pattern, kept in rules]}
    found = packing.network(about, jobs.mlp()).rules
    assert [kept["bits"] for _, kept in found] == [8, 4]
    assert all("learn" not in kept for _, kept in found)


def test_shares_of_the_stage_are_steps():
    made = load(LSQ, "delayed")
    made.compressed.steps = 200
    wanted = step.Rounding(begin=60, track=0.99)
    assert activations.rounding(made, made.compressed) == wanted
    assert activations.freeze_norm(made.compressed) == 140


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begin": 1.5}, "begin is a share of the stage's steps, from 0 to 1, got 1.5"),
        ({"shrink": -1.0}, "shrink is at least 0, got -1.0"),
        ({"track": True, "decay": 0.0}, "track needs a decay above 0 and below 1"),
        ({"track": True, "learn": "lsq"}, "track follows static ranges that are not"),
        ({"track": True, "range": "token"}, "track follows static ranges that are not"),
        ({"shrink": 0.1}, "shrink is a penalty on learned ranges; set learn"),
        ({"points": "adds", "learn": "pact"}, "share ranges, which track and learn"),
    ],
)
def test_bad_settings_are_told(change, message):
    made = config(program=("fake_quantize",))
    made.fake_quantize.update(change)
    with pytest.raises(errors.UserError, match=message):
        activations.rounding(made, made.only)


def test_more_bad_settings_are_told():
    made = config(program=("fake_quantize",), freeze_norm=-0.5)
    with pytest.raises(errors.UserError, match="freeze_norm is a share of the stage's"):
        activations.freeze_norm(made.only)
    made.fake_quantize.rules = ((".", 8, 4),)
    with pytest.raises(errors.UserError, match="rules is pairs \\(pattern, bits\\)"):
        activations.rules(made, made.only)


@pytest.mark.slow
def test_each_rule_is_calibrated_for_its_bits():
    made = config(program=("fake_quantize",))
    made.fake_quantize.update(dict(calibration="mse", batches=2))
    made.fake_quantize.rules = (("dense_0", 2), (".", 8))
    module = jobs.mlp()
    params, variables = models.init(module, jax.random.key(0), jobs.SHAPE)
    network = step.Network(
        models.make_apply(module), activations.rules(made, made.only)
    )

    def found(network=network):
        return activations.calibrate(made, network, params, variables, DATA, 16)

    both = found()
    made.fake_quantize.rules = ()
    for site, bits in (("MLP/dense_0", 2), ("MLP/logits", 8)):
        made.fake_quantize.bits = bits
        alone = found(network._replace(rules=activations.rules(made, made.only)))
        np.testing.assert_array_equal(both[site]["lhs"], alone[site]["lhs"])
    narrow, wide = both["MLP/dense_0"]["lhs"], alone["MLP/dense_0"]["lhs"]
    assert float(narrow[1]) < float(wide[1])
    # What is dynamic needs no data.
    made.fake_quantize.range = "token"
    assert found(network._replace(rules=activations.rules(made, made.only))) == {}


def test_progressive_bits_are_whole_and_fall():
    made = load(LSQ, "progressive")
    made.compressed.steps = 40
    chain = chains.build(made, made.compressed)
    weights = {"kernel": jnp.linspace(-1, 1, 1000)[:, None]}
    code, state = chain.transform.encode(weights)
    decode, update = jax.jit(chain.transform.decode), jax.jit(chain.transform.update)
    levels = [len(np.unique(decode(code, state)["kernel"]))]
    for t in range(40):
        signals = T.Signals(weights, jnp.int32(t), jax.random.key(0))
        state = update(code, state, signals)
        levels.append(len(np.unique(decode(code, state)["kernel"])))
    bits = [int(np.log2(n + 1).round()) for n in levels]
    assert bits[0] == 8 and sorted(set(bits)) == [3, 4, 5, 6, 7, 8]
    assert bits == sorted(bits, reverse=True)
    assert set(bits[21:]) == {3} and chain.settled <= 22
    frozen = chain.transform.freeze(code, state)["kernel"]
    assert frozen.bits == 3
