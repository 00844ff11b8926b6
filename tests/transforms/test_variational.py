"""Sparse variational dropout: against the integral, NumPy, and a toy regression."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

from lib import errors, representations, schedules, tree
from lib import transforms as T
from lib.transforms.variational import divergence, log_alpha
from tests.transforms import irrelevant_inputs as toy

DROPOUT = dict(strength=1e-3, threshold=3.0, log_sigma2=-6.0)


def integral(alpha):
    """The KL divergence from the log-uniform prior, up to a constant, by quadrature.

    `-log(alpha) / 2 + E log|1 + sqrt(alpha) e|`, e standard normal (arXiv 1701.05369,
    eq. 13). The logarithm is singular at e = -1 / sqrt(alpha): integrate around it.
    """
    root = np.sqrt(alpha)

    def density(e):
        return np.log(abs(1 + root * e)) * np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)

    ends = sorted({-12.0, max(-12.0, -1 / root), 12.0})
    parts = zip(ends[:-1], ends[1:], strict=True)
    mean = sum(integrate.quad(density, a, b, limit=200)[0] for a, b in parts)
    return mean - np.log(alpha) / 2


# For an infinite alpha the integral becomes E log|e|, and eq. 14 becomes 0.
AT_INFINITY = -(np.euler_gamma + np.log(2)) / 2


def test_divergence_is_the_integral_within_a_hundredth():
    for alpha in (-6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0):
        want = integral(np.exp(alpha)) - AT_INFINITY
        got = float(divergence(jnp.float32(alpha)))
        assert abs(got - want) < 0.01, alpha


@pytest.mark.slow
def test_divergence_is_finite_everywhere():
    far = jnp.float32([-1e30, -100.0, 100.0, 1e30])
    assert jnp.isfinite(divergence(far)).all()
    slopes = jax.vmap(jax.grad(divergence))(far)
    np.testing.assert_allclose(slopes, [-0.5, -0.5, 0, 0], atol=1e-6)
    both = jax.grad(log_alpha, argnums=(0, 1))
    for w in (0.0, 1e-30, 1e10):
        assert jnp.isfinite(jnp.stack(both(jnp.float32(w), jnp.float32(0)))).all()


def test_decode_and_freeze_are_the_threshold():
    t = T.variational(**DROPOUT)
    code, state = t.encode(toy.weights())
    code = toy.moved(code)
    decoded = toy.check_frozen(t, code, state)
    gone = 0
    for name, layer in code.items():
        w, log_sigma2 = (
            np.asarray(layer["kernel"][k], np.float64) for k in ("w", "log_sigma2")
        )
        with np.errstate(divide="ignore"):
            kept = log_sigma2 - np.log(np.maximum(w**2, 1e-8)) <= 3.0
        want = np.where(kept, w, 0)
        np.testing.assert_array_equal(decoded[name]["kernel"], want)
        frozen = t.freeze(code, state)[name]["kernel"]
        np.testing.assert_array_equal(frozen.mask, kept)
        gone += (~kept).sum()
    assert gone > 0


def test_zeros_are_removed_and_no_noise_is_the_identity():
    params = toy.weights()
    t = T.variational(strength=0.0, threshold=3.0, log_sigma2=-15.0)
    code, state = t.encode(params)
    for name, layer in toy.check_frozen(t, code, state).items():
        np.testing.assert_array_equal(layer["kernel"], params[name]["kernel"])
    assert jax.jit(t.penalty)(code, state) == 0


def test_bfloat16_weights_freeze_as_they_decode():
    t = T.variational(**DROPOUT)
    code, state = t.encode(toy.weights(dtype=jnp.bfloat16))
    toy.check_frozen(t, toy.moved(code), state)


def test_gradient_is_the_masked_one_and_penaltys_that_of_finite_differences():
    t = T.variational(**DROPOUT)
    code, state = t.encode({"kernel": jnp.float32([[0.5, -2.0, 2e-4, 0.0]])})
    grads = jax.jit(jax.grad(lambda c: jnp.sum(t.decode(c, state)["kernel"])))(code)
    np.testing.assert_array_equal(grads["kernel"]["w"], [[1, 1, 0, 0]])
    np.testing.assert_array_equal(grads["kernel"]["log_sigma2"], np.zeros((1, 4)))

    def naive(w, log_sigma2):
        a = log_sigma2 - np.log(np.maximum(w**2, 1e-8))
        shape = 0.63576 / (1 + np.exp(-(1.87320 + 1.48695 * a)))
        return 1e-3 * (0.63576 - shape + 0.5 * np.log(1 + np.exp(-a)))

    grads = jax.jit(jax.grad(t.penalty))(code, state)["kernel"]
    w = np.array([0.5, -2.0, 2e-4, 0.0])
    h = 1e-6 * np.maximum(np.abs(w), 1e-3)
    slope = (naive(w + h, -6.0) - naive(w - h, -6.0)) / (2 * h)
    np.testing.assert_allclose(grads["w"][0], slope, rtol=1e-3, atol=1e-8)
    slope = (naive(w, -6.0 + 1e-5) - naive(w, -6.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(grads["log_sigma2"][0], slope, rtol=1e-3, atol=1e-8)
    total = naive(w, -6.0).sum()
    np.testing.assert_allclose(jax.jit(t.penalty)(code, state), total, rtol=1e-5)


def test_samples_have_the_variance_and_nothing_recompiles():
    t = T.variational(**DROPOUT)
    code, state = t.encode({"kernel": jnp.full((100, 200), 0.5)})
    sample = jax.jit(t.sample)
    drawn = [sample(code, state, jax.random.key(i))["kernel"] for i in (0, 1)]
    assert sample._cache_size() <= 1
    assert (np.asarray(drawn[0]) != np.asarray(drawn[1])).any()
    np.testing.assert_allclose(np.mean(drawn[0]), 0.5, atol=2e-3)
    np.testing.assert_allclose(np.var(drawn[0]), np.exp(-6), rtol=0.03)


def test_warm_up_moves_the_penalty():
    strength = schedules.linear(initial=0.0, final=1.0, begin=0, end=4)
    t = T.variational(strength=strength, threshold=3.0, log_sigma2=-6.0)
    code, state = t.encode({"kernel": jnp.ones((2, 2))})
    assert jax.jit(t.penalty)(code, state) == 0
    state = t.update(code, state, T.Signals(code, jnp.int32(2), toy.KEY))
    half = 0.5 * 4 * divergence(jnp.float32(-6.0))
    np.testing.assert_allclose(jax.jit(t.penalty)(code, state), half, rtol=1e-6)


@pytest.mark.slow
def test_irrelevant_inputs_die():
    t = T.variational(strength=1e-3, threshold=3.0, log_sigma2=-6.0)
    # Adam's steps have to become small, or they are noise of their own.
    falling = optax.adam(optax.cosine_decay_schedule(0.03, 800))
    _, _, kernel = toy.fit(t, steps=800, optimizer=falling)
    toy.check_found(kernel, slack=0.1)


def test_rounded_after_removal_zeros_stay():
    t = T.chain(T.keep(), T.quantize(bits=4), T.variational(**DROPOUT))
    code, state = t.encode(toy.weights(shapes=((6, 4),)))
    for layer in code.values():
        noisy = layer["kernel"]["log_sigma2"].at[..., 0, :].set(9.0)
        layer["kernel"]["log_sigma2"] = noisy
    decoded = toy.check_frozen(t, code, state)
    for path, rep in tree.flatten(t.freeze(code, state)).items():
        if "kernel" in path:
            assert isinstance(rep, representations.Sparse)
            assert isinstance(rep.values, representations.Quantized)
            assert (np.asarray(tree.get(decoded, path))[..., 0, :] == 0).all()


@pytest.mark.parametrize("later", [T.prune(sparsity=0.5), T.quantize(bits=4), T.keep()])
def test_what_would_take_the_variances_for_weights_is_refused(later):
    with pytest.raises(errors.UserError, match="variational before .*variances"):
        T.chain(T.variational(**DROPOUT), later).encode(toy.weights())


def test_mistakes():
    with pytest.raises(errors.UserError, match="strength is at least 0, got -1.0"):
        T.variational(strength=-1.0, threshold=3.0, log_sigma2=-6.0)
