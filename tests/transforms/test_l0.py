"""Hard concrete gates: against NumPy, against sampling, and on a toy regression."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, schedules, tree
from lib import transforms as T
from lib.transforms.l0 import chance, gate, noisy_gate
from tests.transforms import irrelevant_inputs as toy

GATES = dict(strength=0.01, groups="in", drop_rate=0.5)
LOCATIONS = np.array([-4.0, -2.0, 0.0, 1.0, 3.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def drawn_by_hand(location, count=200_000):
    """Gates as the paper draws them: eqs. 10 and 11, from uniform noise."""
    u = np.random.default_rng(0).uniform(size=count)
    s = sigmoid((np.log(u) - np.log(1 - u) + location) / (2 / 3))
    return np.clip(s * 1.2 - 0.1, 0, 1)


def test_statistics_are_those_of_the_papers_gates():
    draw = jax.jit(noisy_gate)
    for location in LOCATIONS:
        drawn = np.asarray(draw(jnp.full(200_000, location, jnp.float32), toy.KEY))
        by_hand = drawn_by_hand(location)
        for measure in (np.mean, np.std):
            assert abs(measure(drawn) - measure(by_hand)) < 0.005
        for end in (0, 1):
            assert abs((drawn == end).mean() - (by_hand == end).mean()) < 0.005
        open_ = (by_hand != 0).mean()
        assert abs(float(chance(jnp.float32(location))) - open_) < 0.005


def test_gates_of_test_time_and_extremes():
    found = gate(jnp.float32(LOCATIONS))
    want = np.clip(sigmoid(LOCATIONS) * 1.2 - 0.1, 0, 1)
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert found[0] == 0 and found[-1] == 1
    far = jnp.float32([-1e30, -200.0, 200.0, 1e30])
    np.testing.assert_array_equal(gate(far), [0, 0, 1, 1])
    np.testing.assert_array_equal(chance(far), [0, 0, 1, 1])
    for f in (gate, chance, lambda x: noisy_gate(x, toy.KEY)):
        assert jnp.isfinite(jax.vmap(jax.grad(lambda x, f=f: f(x[None])[0]))(far)).all()


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["element", "out", "in"])
def test_decode_penalty_and_freeze(groups):
    params = toy.weights()
    t = T.l0(strength=0.25, groups=groups, drop_rate=0.5)
    code, state = t.encode(params)
    code = toy.moved(code)
    noise = jax.tree.map(lambda w: np.random.default_rng(1).normal(size=w.shape), code)
    for layer, shift in zip(code.values(), noise.values(), strict=True):
        layer["kernel"]["log_alpha"] += jnp.float32(4 * shift["kernel"]["log_alpha"])
    decoded = toy.check_frozen(t, code, state)
    expected, closed = 0.0, 0
    for name, layer in code.items():
        w, location = (np.asarray(layer["kernel"][k]) for k in ("w", "log_alpha"))
        gates = np.clip(sigmoid(location) * 1.2 - 0.1, 0, 1)
        closed += (gates == 0).sum()
        np.testing.assert_allclose(decoded[name]["kernel"], w * gates, atol=1e-5)
        opened = sigmoid(location - 2 / 3 * math.log(0.1 / 1.1))
        expected += 0.25 * np.broadcast_to(opened, w.shape).sum()
        frozen = t.freeze(code, state)[name]["kernel"]
        np.testing.assert_array_equal(frozen.mask, np.broadcast_to(gates > 0, w.shape))
    assert closed > 0
    np.testing.assert_allclose(jax.jit(t.penalty)(code, state), expected, rtol=1e-5)


def test_bfloat16_weights_freeze_as_they_decode():
    params = toy.weights(dtype=jnp.bfloat16)
    t = T.l0(**GATES)
    code, state = t.encode(params)
    toy.check_frozen(t, toy.moved(code), state)


def test_gradients_are_those_of_the_formula():
    t = T.l0(**GATES)
    params = {"kernel": jnp.float32([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]])}
    code, state = t.encode(params)
    location = np.array([-4.0, 0.3, 0.3])[:, None]
    code["kernel"]["log_alpha"] = jnp.float32(location)

    @jax.jit
    def loss(c):
        return jnp.sum(jnp.square(t.decode(c, state)["kernel"])) / 2

    grads = jax.grad(loss)(code)["kernel"]
    w, s = np.asarray(params["kernel"], np.float64), sigmoid(location)
    gates = np.clip(s * 1.2 - 0.1, 0, 1)
    slope = np.where(gates > 0, 1.2 * s * (1 - s), 0)
    np.testing.assert_allclose(grads["w"], w * gates**2, atol=1e-5)
    want = (w**2 * gates * slope).sum(1, keepdims=True)
    np.testing.assert_allclose(grads["log_alpha"], want, rtol=1e-4)
    pull = jax.jit(jax.grad(t.penalty))(code, state)["kernel"]
    opened = sigmoid(location - 2 / 3 * math.log(0.1 / 1.1))
    want = 0.01 * 2 * opened * (1 - opened)
    np.testing.assert_allclose(pull["log_alpha"], want, rtol=1e-4)


def test_no_strength_and_open_gates_are_the_identity():
    params = toy.weights()
    t = T.l0(strength=0.0, groups="out", drop_rate=1 / 13)
    code, state = t.encode(params)
    toy.same_bytes(toy.check_frozen(t, code, state), params)
    assert jax.jit(t.penalty)(code, state) == 0


def test_samples_differ_by_key_and_leaf_and_nothing_recompiles():
    t = T.l0(strength=0.01, groups="element", drop_rate=0.5)
    params = {n: {"kernel": jnp.ones((6, 4))} for n in ("b", "a")}
    code, state = t.encode(params)
    sample = jax.jit(t.sample)
    first, second = (sample(code, state, jax.random.key(i)) for i in (0, 1))
    assert sample._cache_size() <= 1
    a, b = np.asarray(first["a"]["kernel"]), np.asarray(first["b"]["kernel"])
    assert (a != b).any() and (a != np.asarray(second["a"]["kernel"])).any()
    # The order of the keys, which jit sorts, does not change what is drawn.
    again = t.sample(code, state, jax.random.key(0))
    for name in params:
        got, want = again[name]["kernel"], first[name]["kernel"]
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_group_shares_its_gate():
    code, state = T.l0(**GATES).encode({"kernel": jnp.ones((8, 5))})
    drawn = np.asarray(T.l0(**GATES).sample(code, state, toy.KEY)["kernel"])
    np.testing.assert_array_equal(drawn, np.repeat(drawn[:, :1], 5, axis=1))
    assert len(np.unique(drawn)) > 2


def test_schedule_moves_the_penalty():
    strength = schedules.linear(initial=0.0, final=1.0, begin=0, end=4)
    t = T.l0(strength=strength, groups="in", drop_rate=0.5)
    code, state = t.encode({"kernel": jnp.ones((2, 2))})
    assert jax.jit(t.penalty)(code, state) == 0
    state = t.update(code, state, T.Signals(code, jnp.int32(4), toy.KEY))
    np.testing.assert_allclose(jax.jit(t.penalty)(code, state), 4 * chance(0.0))


@pytest.mark.slow
def test_irrelevant_inputs_die():
    _, _, kernel = toy.fit(T.l0(**GATES), steps=800)
    toy.check_found(kernel, slack=0.1)


def test_rounded_after_gating_zeros_stay():
    t = T.chain(T.keep(), T.quantize(bits=4), T.l0(**GATES))
    code, state = t.encode(toy.weights(shapes=((6, 4),)))
    for layer in code.values():
        closed = layer["kernel"]["log_alpha"].at[..., 0, :].set(-9.0)
        layer["kernel"]["log_alpha"] = closed
    decoded = toy.check_frozen(t, code, state)
    for path, rep in tree.flatten(t.freeze(code, state)).items():
        if "kernel" in path:
            assert isinstance(rep, representations.Sparse)
            assert isinstance(rep.values, representations.Quantized)
            assert (np.asarray(tree.get(decoded, path))[..., 0, :] == 0).all()


@pytest.mark.parametrize("later", [T.prune(sparsity=0.5), T.quantize(bits=4), T.keep()])
def test_what_would_take_the_gates_for_weights_is_refused(later):
    with pytest.raises(errors.UserError, match="l0 before .*gates"):
        T.chain(T.l0(**GATES), later).encode(toy.weights())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -1.0}, "strength is at least 0, got -1.0"),
        ({"drop_rate": 1.0}, "drop_rate is above 0 and below 1, got 1.0"),
        ({"groups": "input"}, "unknown kind of group 'input'"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(errors.UserError) as e:
        T.l0(**{**GATES, **change})
    assert message in str(e.value)
