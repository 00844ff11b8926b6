"""Soft weight-sharing: against scikit-learn's mixture and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, schedules, tree
from lib import transforms as T
from lib.transforms.soft_share import log_joint
from tests.transforms import irrelevant_inputs as toy

MIXTURE = dict(
    strength=1e-3,
    components=4,
    zero=0.6,
    spread=(250.0, 0.1),
    zero_spread=(5000.0, 2.0),
    collapse=3,
)
ALL = {
    "means": np.array([-1.0, 0.4, 0.7]),
    "log_precisions": np.array([3.0, 2.0, 1.0, 4.0]),
    "logits": np.array([0.1, -0.2, 0.5]),
}


def encoded(**changes):
    """A code with the mixture `ALL`, its state, and the transform."""
    t = T.soft_share(**{**MIXTURE, **changes})
    code, state = t.encode(toy.weights())
    for name, values in ALL.items():
        code["layer0"]["kernel"][name] = jnp.float32(values)
    return t, code, state


def proportions(zero=0.6):
    rest = np.exp(ALL["logits"])
    return np.r_[zero, (1 - zero) * rest / rest.sum()]


def scored(w):
    """The joint log densities `[n, components]`, in NumPy."""
    means, precisions = np.r_[0, ALL["means"]], np.exp(ALL["log_precisions"])
    density = np.sqrt(precisions / (2 * np.pi)) * np.exp(
        -precisions * (w[:, None] - means) ** 2 / 2
    )
    return np.log(proportions() * density)


def after(t, code, state, step):
    return t.update(code, state, T.Signals(code, jnp.int32(step), toy.KEY))


def test_likelihood_is_that_of_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    w = np.random.default_rng(0).normal(size=50)
    model = mixture.GaussianMixture(4, covariance_type="spherical")
    model.weights_ = proportions()
    model.means_ = np.r_[0, ALL["means"]][:, None]
    model.covariances_ = np.exp(-ALL["log_precisions"])
    model.precisions_cholesky_ = np.exp(ALL["log_precisions"] / 2)
    every = {k: jnp.float32(x) for k, x in ALL.items()}
    joint = jax.jit(log_joint)(jnp.float32(w), every, 0.6)
    got = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(got, model.score_samples(w[:, None]), rtol=1e-4)
    np.testing.assert_array_equal(np.argmax(joint, 1), model.predict(w[:, None]))


def test_penalty_and_its_gradient_by_finite_differences():
    stats = pytest.importorskip("scipy.stats")
    prior = (3.0, 0.5)
    t, code, state = encoded(spread=prior, zero_spread=(5.0, 0.2))

    def naive(code):
        mixed = code["layer0"]["kernel"]
        total = 0.0
        means, precisions = np.r_[0, mixed["means"]], np.exp(mixed["log_precisions"])
        rest = np.exp(mixed["logits"])
        pi = np.r_[0.6, 0.4 * rest / rest.sum()]
        for layer in code.values():
            w = np.asarray(layer["kernel"]["w"], np.float64).reshape(-1, 1)
            density = stats.norm.pdf(w, means, 1 / np.sqrt(precisions))
            total += np.log((pi * density).sum(1)).sum()
        # The Gamma densities less their constants.
        for x, (a, b) in zip(precisions, [(5.0, 0.2)] + [prior] * 3, strict=True):
            free = stats.gamma.logpdf(x, a, scale=1 / b)
            total += free - stats.gamma.logpdf(1.0, a, scale=1 / b) - b
        return -1e-3 * total

    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), code)
    np.testing.assert_allclose(jax.jit(t.penalty)(code, state), naive(wide), rtol=1e-5)
    grads = jax.jit(jax.grad(t.penalty))(code, state)
    for path in ("layer0/kernel", "layer1/kernel"):
        for name, x in tree.get(wide, path).items():
            for at in list(np.ndindex(x.shape))[:4]:
                step = np.zeros_like(x)
                step[at] = 1e-5
                up, down = (
                    naive(tree.replace(wide, {f"{path}/{name}": x + sign * step}))
                    for sign in (1, -1)
                )
                got = tree.get(grads, path)[name][at]
                np.testing.assert_allclose(
                    got, (up - down) / 2e-5, rtol=2e-3, atol=2e-6
                )


def test_one_mixture_serves_all_leaves_and_rules_have_their_own():
    code, _ = T.soft_share(**MIXTURE).encode(toy.weights())
    assert sorted(code["layer0"]["kernel"]) == [
        "log_precisions",
        "logits",
        "means",
        "w",
    ]
    assert sorted(code["layer1"]["kernel"]) == ["w"]
    rules = [(f"layer{i}", T.soft_share(**MIXTURE)) for i in (0, 1)]
    code, _ = T.select(rules).encode(toy.weights())
    assert "means" in code["layer1"]["kernel"]


def test_decode_is_the_identity_until_the_weights_collapse():
    t, code, state = encoded()
    update, decode = jax.jit(t.update), jax.jit(t.decode)
    for step in range(4):
        decoded = toy.check_frozen(t, code, state)
        toy.same_bytes(decoded, decode(code, state))
        means = np.r_[0, ALL["means"]].astype(np.float32)
        for name, layer in code.items():
            w = np.asarray(layer["kernel"]["w"])
            got, frozen = decoded[name]["kernel"], t.freeze(code, state)[name]["kernel"]
            if step < 3:
                np.testing.assert_array_equal(got, w)
                assert isinstance(frozen, representations.Dense)
                continue
            best = scored(w.reshape(-1).astype(np.float64)).argmax(1).reshape(w.shape)
            best[w == 0] = 0
            np.testing.assert_array_equal(got, means[best])
            assert (best == 0).any() and len(np.unique(best)) > 2
            np.testing.assert_array_equal(frozen.mask, best != 0)
            assert isinstance(frozen.values, representations.Codebook)
        assert (jax.jit(t.penalty)(code, state) == 0) == (step == 3)
        signals = T.Signals(code, jnp.int32(step), toy.KEY)
        state = update(code, state, signals)
    assert max(update._cache_size(), decode._cache_size()) <= 1


def test_after_the_collapse_the_means_are_trained_and_nothing_else():
    t, code, state = encoded()
    state = after(t, code, state, 2)
    later = after(t, toy.moved(code), state, 3)
    for path, one in state.items():
        np.testing.assert_array_equal(one["component"], later[path]["component"])

    def loss(c):
        decoded = t.decode(c, state)
        total = sum(jnp.sum(x["kernel"] ** 2) / 2 for x in decoded.values())
        return total + jax.jit(t.penalty)(c, state)

    grads = jax.jit(jax.grad(loss))(code)
    mixed = grads["layer0"]["kernel"]
    for name, layer in grads.items():
        np.testing.assert_array_equal(
            layer["kernel"]["w"], 0 * code[name]["kernel"]["w"]
        )
    for name in ("log_precisions", "logits"):
        np.testing.assert_array_equal(mixed[name], np.zeros_like(ALL[name]))
    owned = np.concatenate([x["component"].reshape(-1) for x in state.values()])
    count = np.bincount(owned, minlength=4)[1:]
    np.testing.assert_allclose(mixed["means"], count * ALL["means"], rtol=1e-5)


def test_no_strength_is_the_identity():
    t = T.soft_share(**{**MIXTURE, "strength": 0.0, "collapse": 0})
    params = toy.weights()
    code, state = t.encode(params)
    state = after(t, code, state, 0)
    toy.same_bytes(toy.check_frozen(t, code, state), params)
    assert jax.jit(t.penalty)(code, state) == 0


def test_gradients_are_finite_where_weights_are_zero_or_far():
    t = T.soft_share(**MIXTURE)

    @jax.jit
    def slope(params):
        return jax.grad(t.penalty)(*t.encode(params))

    for scale in (0.0, 1e-20, 1e3):
        grads = slope(jax.tree.map(lambda w, s=scale: w * np.float32(s), toy.weights()))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_schedule_moves_the_penalty():
    strength = schedules.linear(initial=0.0, final=1.0, begin=0, end=4)
    t, code, state = encoded(strength=strength, collapse=0)
    assert jax.jit(t.penalty)(code, state) == 0
    half = jax.jit(t.penalty)(code, after(t, code, state, 2))
    whole = jax.jit(t.penalty)(code, after(t, code, state, 4))
    np.testing.assert_allclose(2 * half, whole, rtol=1e-6)


def test_irrelevant_inputs_die_and_the_rest_shares_its_values():
    t = T.soft_share(
        strength=1e-4,
        components=4,
        zero=0.7,
        spread=(250.0, 0.1),
        zero_spread=(5000.0, 2.0),
        collapse=500,
    )
    _, _, kernel = toy.fit(t, steps=700)
    toy.check_found(kernel, slack=0.1)
    assert len(np.unique(kernel)) <= 4


def test_collapsed_zeros_stay_where_weights_are_rounded_or_removed():
    t = T.chain(T.keep(), T.quantize(bits=4), T.soft_share(**MIXTURE))
    params = toy.weights(shapes=((6, 4),))
    code, state = t.encode(params)
    state = jax.jit(t.update)(code, state, T.Signals(params, jnp.int32(2), toy.KEY))
    decoded = toy.check_frozen(t, code, state)
    for path, rep in tree.flatten(t.freeze(code, state)).items():
        if "kernel" in path:
            assert isinstance(rep, representations.Sparse)
            w = np.asarray(tree.get(decoded, path))
            assert (w[np.asarray(tree.get(params, path)) == 0] == 0).all()


@pytest.mark.parametrize("later", [T.prune(sparsity=0.5), T.quantize(bits=4), T.keep()])
def test_what_would_take_the_mixture_for_weights_is_refused(later):
    with pytest.raises(errors.UserError, match="soft_share before .*mixture"):
        T.chain(T.soft_share(**MIXTURE), later).encode(toy.weights())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -1.0}, "strength is at least 0, got -1.0"),
        ({"components": 1}, "components is from 2 to 256, got 1"),
        ({"zero": 1.0}, "zero is above 0 and below 1, got 1.0"),
        ({"spread": (1.0,)}, "spread is (shape, rate), both above 0, got (1.0,)"),
        ({"collapse": -1}, "collapse is at least 0 steps, got -1"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(errors.UserError) as e:
        T.soft_share(**{**MIXTURE, **change})
    assert message in str(e.value)
