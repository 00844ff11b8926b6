"""SmoothQuant and AWQ: the papers' scales, where they go, what they are good for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, numerics, program


def x(count=32, width=4, seed=1):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def block(w, x):
    """A norm, the sum of two projections of it, which nothing passes, and a way out."""
    x = (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * w["scale"][None] + w["bias"][None]
    with jax.named_scope("first"):
        h = x @ w["a"]
    with jax.named_scope("second"):
        h = h + x @ w["b"]
    with jax.named_scope("last"):
        return jax.nn.gelu(h) @ w["c"]


def weights(outlier=1.0):
    rng = np.random.default_rng(0)
    shapes = dict(scale=(4,), bias=(4,), a=(4, 6), b=(4, 6), c=(6, 3))
    w = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    # The channel is large, and what reads it has small weights for it.
    grow = np.array([1, outlier, 1, 1], np.float32)
    for name in ("scale", "bias"):
        w[name] = w[name] * grow
    for name in "ab":
        w[name] = w[name] / grow[:, None]
    return w


def normed(w, x):
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    return x * w["scale"] + w["bias"]


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_smoothing_by_the_papers_equation(alpha):
    w, data = weights(10.0), [(x(seed=s),) for s in (1, 2)]
    new, changes = program.smooth(
        block, w, data, example=(x(2),), alpha=alpha, pattern="first|last"
    )
    most = np.abs(np.concatenate([normed(w, b) for (b,) in data])).max(0)
    own = np.maximum(np.abs(w["a"]).max(1), np.abs(w["b"]).max(1))
    s = most**alpha / own ** (1 - alpha)  # eq. 4
    for name, by in (
        ("scale", 1 / s),
        ("bias", 1 / s),
        ("a", s[:, None]),
        ("b", s[:, None]),
    ):
        np.testing.assert_allclose(new[name], w[name] * by, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(new["c"], w["c"])
    first, last = changes
    assert first.name == "first" and set(first.paths) == {"scale", "bias", "a", "b"}
    assert last.name == "last" and "another value is added" in last.why


@pytest.mark.slow
def test_an_outlier_that_8_bits_cannot_hold():
    w, data = weights(100.0), x(256)
    new, _ = program.smooth(block, w, [(data,)], example=(x(2),), alpha=0.5)
    exact = np.asarray(block(w, data))

    def lost(w):
        """Share of the output lost by 8-bit weights and activations, W8A8."""
        grids = {
            k: numerics.grid(-m, m, 8, symmetric=True)
            for k, m in ((k, jnp.abs(w[k]).max(0, keepdims=True)) for k in "abc")
        }
        w = {
            **w,
            **{k: numerics.fake_quant(jnp.asarray(w[k]), grids[k]) for k in "abc"},
        }
        ranges = program.calibrate(block, w, [(data,)], program.minmax())
        rules = [(".", {"bits": 8, "symmetric": True})]
        out = program.fake_quantize(block, ranges, rules)(w, data)
        return np.abs(out - exact).mean() / np.abs(exact).mean()

    assert lost(w) > 0.1 and lost(new) < 0.02


@pytest.mark.slow
def test_a_folded_norm_stays_folded():
    def f(w, x):
        y = (x @ w["k"] - w["mean"][None]) * (
            jax.lax.rsqrt(w["var"] + 1e-5) * w["gamma"]
        )[None] + w["beta"][None]
        return jax.nn.relu(y) @ w["out"]

    rng = np.random.default_rng(0)
    shapes = dict(k=(4, 5), mean=(5,), var=(5,), gamma=(5,), beta=(5,), out=(5, 2))
    w = {n: rng.uniform(0.5, 2, s).astype(np.float32) for n, s in shapes.items()}
    args = dict(example=(x(2),), alpha=0.5)
    new, _ = program.smooth(f, w, [(x(),)], **args)
    np.testing.assert_array_equal(new["k"], w["k"])  # the scale takes it
    folded, _ = program.fold_batch_norm(f)(w, x(2))
    new, _ = program.smooth(f, folded, [(x(),)], **args)
    multiplier = new["gamma"] / np.sqrt(new["var"] + 1e-5)
    np.testing.assert_allclose(multiplier, np.ones(5), rtol=1e-4)
    assert np.abs(new["k"] - folded["k"]).max() > 0.01
    np.testing.assert_allclose(f(new, x()), f(w, x()), rtol=1e-3, atol=1e-4)


def rounding(w):
    """3 bits, a grid for each output; what is no kernel stays."""
    new = dict(w)
    for name in "abc":
        most = jnp.abs(w[name]).max(0, keepdims=True)
        grid = numerics.grid(-most, most, 3, symmetric=True)
        new[name] = numerics.fake_quant(jnp.asarray(w[name]), grid)
    return new


@pytest.mark.slow
def test_awq_takes_the_best_of_its_grid():
    w = weights()
    w["scale"] = w["scale"] * np.array([1, 20, 0.1, 1], np.float32)
    data = [(x(seed=s),) for s in (1, 2)]
    new, changes = program.awq(
        block, w, data, example=(x(2),), rounding=rounding, points=6
    )
    inputs = np.concatenate([normed(w, b) for (b,) in data])
    mean, losses, tried = np.abs(inputs).mean(0), [], []
    for alpha in np.linspace(0, 1, 6):
        s = mean**alpha
        tried.append(s / np.sqrt(s.max() * s.min()))
        grown = rounding({**w, **{k: w[k] * tried[-1][:, None] for k in "ab"}})
        losses.append(
            sum(
                np.square(inputs / tried[-1] @ grown[k] - inputs @ w[k]).sum()
                for k in "ab"
            )
        )
    best = tried[int(np.argmin(losses))]
    assert np.argmin(losses) > 0  # it is worth it here
    np.testing.assert_allclose(new["scale"], w["scale"] / best, rtol=1e-4)
    np.testing.assert_allclose(new["b"], w["b"] * best[:, None], rtol=1e-4)
    assert [bool(c.paths) for c in changes] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(alpha=1.5), "alpha is from 0 to 1, got 1.5"),
        (dict(pattern="thrid"), "'thrid' matches nothing"),
        (dict(batches=[]), "got no batches"),
        (dict(batches=[(np.full((2, 4), np.nan, np.float32),)]), "not finite"),
    ],
)
def test_bad_input(changes, message):
    args = dict(batches=[(x(2),)], example=(x(2),), alpha=0.5, pattern=".")
    args.update(changes)
    with pytest.raises(errors.UserError, match=message):
        program.smooth(block, weights(), args.pop("batches"), **args)


@pytest.mark.slow
def test_awq_leaves_what_is_fed_in_groups():
    """A depthwise convolution has a Gram matrix for each group: left, with a reason."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (1, 1), name="first")(x))
            x = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x)
            return nn.Dense(3, name="last")(x.mean((1, 2)))

    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 3))
    params = Net().init(jax.random.key(1), x)["params"]

    def f(params, x):
        return Net().apply({"params": params}, x)

    new, changes = program.awq(
        f,
        params,
        [(x,)],
        example=(x,),
        rounding=lambda w: jax.tree.map(lambda leaf: jnp.round(4 * leaf) / 4, w),
        points=3,
        pattern=".",
    )
    (left,) = (c for c in changes if c.name.endswith("depthwise"))
    assert not left.paths and "groups" in left.why
    np.testing.assert_allclose(f(new, x), f(params, x), rtol=1e-4, atol=1e-5)
