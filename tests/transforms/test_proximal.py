"""Proximal steps: against the operators written out, and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, representations, schedules
from lib import transforms as T
from lib.transforms import grouping
from tests.transforms import irrelevant_inputs as toy

LASSO = dict(strength=0.2, learning_rate=0.5, groups="element")


def stepped(t, params, step=0):
    code, before = t.encode(params)
    signals = T.Signals(params, jnp.int32(step), toy.KEY)
    after = t.update(code, before, signals)
    code, fresh = T.renew(t, code, before, after)
    assert fresh == {}
    return code, after


def test_literal_soft_threshold():
    w = jnp.float32([[0.05, -0.1, 0.5], [-0.3, 0.0, 0.11]])
    code, state = stepped(T.proximal(**LASSO), {"kernel": w})
    want = np.float32([[0, 0, 0.4], [-0.2, 0, 0.01]])
    np.testing.assert_allclose(code["kernel"], want, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(code["kernel"]) == 0, want == 0)
    assert not np.signbit(np.asarray(code["kernel"])[want == 0]).any()
    toy.check_frozen(T.proximal(**LASSO), code, state)


@pytest.mark.parametrize("groups", ["out", "in"])
def test_group_threshold_is_the_naive_one(groups):
    params = toy.weights()
    t = T.proximal(strength=0.4, learning_rate=0.5, groups=groups)
    code, _ = stepped(t, params)
    died = 0
    for name, layer in params.items():
        w = np.array(layer["kernel"], np.float64)
        for i in range(w.shape[-1 if groups == "out" else -2]):
            at = (..., i) if groups == "out" else (..., i, slice(None))
            norm = np.sqrt((w[at] ** 2).sum())
            w[at] *= max(1 - 0.2 * np.sqrt(w[at].size) / norm, 0)
            died += norm <= 0.2 * np.sqrt(w[at].size)
        np.testing.assert_allclose(code[name]["kernel"], w, rtol=1e-5, atol=1e-7)
    far = T.proximal(strength=40.0, learning_rate=0.5, groups=groups)
    for name, layer in stepped(far, params)[0].items():
        assert np.asarray(layer["kernel"]).tobytes().strip(b"\0") == b"", name


def test_steps_of_sgd_end_where_the_lasso_of_scikit_learn_does():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    y = x[:, 0] - 0.5 * x[:, 1] + 0.1 * rng.normal(size=60).astype(np.float32)
    t = T.proximal(strength=0.1, learning_rate=0.1, groups="element")
    code, state = t.encode({"kernel": jnp.zeros((8, 1))})

    def step(code, i):
        residual = x @ code["kernel"] - y[:, None]
        code = {"kernel": code["kernel"] - 0.1 * (x.T @ residual) / 60}
        return T.renew(t, code, state, state)[0], None

    code, _ = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(400)))(code)
    model = linear_model.Lasso(alpha=0.1, fit_intercept=False, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(code["kernel"][:, 0], model.coef_, atol=1e-5)
    assert (model.coef_ == 0).any()
    np.testing.assert_array_equal(code["kernel"][:, 0] == 0, model.coef_ == 0)


@pytest.mark.parametrize("groups", ["element", "out", "in"])
def test_no_strength_is_the_identity(groups):
    params = {"kernel": jnp.float32([[1e-30, -0.0, 2.0], [-3e-30, 0.0, -1.0]])}
    t = T.proximal(strength=0.0, learning_rate=1.0, groups=groups)
    code, state = stepped(t, params)
    toy.same_bytes(code, params)
    toy.same_bytes(toy.check_frozen(t, code, state), params)


def test_schedules_are_followed_at_the_step_just_taken():
    strength = schedules.linear(initial=0.0, final=1.0, begin=0, end=10)
    rate = schedules.linear(initial=0.5, final=0.0, begin=0, end=10)
    t = T.proximal(strength=strength, learning_rate=rate, groups="element")
    for step in (0, 4, 10):
        code, _ = stepped(t, {"kernel": jnp.ones((1, 1))}, step)
        want = 1 - step / 10 * (0.5 - step / 20)
        np.testing.assert_allclose(code["kernel"], [[want]], rtol=1e-6)


def test_traced_strength():
    @jax.jit
    @jax.vmap
    def swept(strength):
        t = T.proximal(strength=strength, learning_rate=1.0, groups="element")
        return stepped(t, {"kernel": jnp.ones((1, 2))})[0]["kernel"]

    got = swept(jnp.float32([0.0, 0.25, 2.0]))
    np.testing.assert_array_equal(got[:, 0, 0], [1, 0.75, 0])


def test_gradient_passes_zeros_and_nothing_recompiles():
    t = T.proximal(**LASSO)
    code, state = t.encode({"kernel": jnp.float32([[0.0, 2.0]])})
    decode = jax.jit(jax.grad(lambda c: jnp.sum(3 * t.decode(c, state)["kernel"])))
    renew = jax.jit(lambda c: T.renew(t, c, state, state)[0])
    for _ in range(2):
        np.testing.assert_array_equal(decode(code)["kernel"], [[3, 3]])
        code = renew(code)
    assert max(decode._cache_size(), renew._cache_size()) <= 1


@pytest.mark.parametrize("groups", ["element", "in"])
def test_irrelevant_inputs_die(groups):
    t = T.proximal(strength=0.02, learning_rate=0.5, groups=groups)
    _, _, kernel = toy.fit(t, steps=200, optimizer=optax.sgd(0.5))
    toy.check_found(kernel, slack=0.15)


@pytest.mark.parametrize("keeps_first", [True, False])
def test_in_a_chain_with_quantize_and_prune(keeps_first):
    lasso = T.proximal(**LASSO)
    both = (T.keep(), lasso) if keeps_first else (lasso, T.keep())
    t = T.chain(*both, T.quantize(bits=4))
    code, state = stepped(t, toy.weights(shapes=((6, 4),)))
    decoded = toy.check_frozen(t, code, state)
    for name, layer in code.items():
        zeros = np.asarray(layer["kernel"]) == 0
        assert zeros.any()
        assert (np.asarray(decoded[name]["kernel"])[zeros] == 0).all()
        frozen = t.freeze(code, state)[name]["kernel"]
        assert isinstance(frozen, representations.Sparse)
        assert isinstance(frozen.values, representations.Quantized)


def test_weights_that_are_stored_otherwise_are_refused():
    t = T.chain(T.proximal(**LASSO), T.l0(strength=0.0, groups="in", drop_rate=0.5))
    with pytest.raises(errors.UserError, match="put proximal after it"):
        t.encode(toy.weights())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -1.0}, "strength is at least 0, got -1.0"),
        ({"learning_rate": 0.0}, "learning_rate is above 0, got 0.0"),
        ({"groups": "outs"}, "unknown kind of group 'outs'; did you mean 'out'?"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(errors.UserError) as e:
        T.proximal(**{**LASSO, **change})
    assert message in str(e.value)


def test_a_vector_has_no_inputs():
    t = T.proximal(strength=1.0, learning_rate=1.0, groups="in", pattern="bias")
    with pytest.raises(errors.UserError, match="layer0/bias .* no input channels"):
        t.encode(toy.weights())
    assert grouping.shared_axes("out", "bias", (4,)) == ()
