"""Batch norms folded: kernels, statistics and what the program computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib import errors, models, program, tree
from lib.program.preserving import preserve


def lively(variables, seed=0):
    """Norms as after training: no statistic, scale or bias is 0 or 1."""
    rng = np.random.default_rng(seed)

    def drawn(path, leaf):
        if path.endswith("/var"):
            return jnp.asarray(rng.uniform(0.1, 3, leaf.shape), jnp.float32)
        if path.endswith("/kernel"):
            return jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)

    flat = tree.flatten(variables)
    return tree.unflatten({path: drawn(path, leaf) for path, leaf in flat.items()})


def images(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def cnn():
    module = models.build("cnn", classes=3, widths=(4, 5))
    params, variables = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (8, 8, 1))
    )
    apply = models.make_apply(module)

    def f(weights, x, train=False):
        return apply(**weights, inputs=x, train=train, key=None)[0][0]

    return f, lively({"params": params, "variables": variables})


@pytest.mark.slow
def test_a_cnn_as_by_hand():
    f, weights = cnn()
    x = images(2, 8, 8, 1)
    new, changes = program.fold_batch_norm(f)(weights, x)
    np.testing.assert_allclose(f(new, x), f(weights, x), rtol=1e-4, atol=1e-5)
    for norm, conv in (("norm_0_0", "conv_0_0"), ("norm_1_0", "conv_1_0")):
        old = weights["params"][norm]
        stats = weights["variables"]["batch_stats"][norm]
        m = old["scale"] / np.sqrt(stats["var"] + 1e-5)
        kernel = weights["params"][conv]["kernel"] * m.reshape(1, 1, 1, -1)
        now = new["variables"]["batch_stats"][norm]
        close = dict(rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new["params"][conv]["kernel"], kernel, **close)
        np.testing.assert_allclose(now["mean"], stats["mean"] * m, **close)
        np.testing.assert_allclose(now["var"], stats["var"] * m**2, **close)
        np.testing.assert_array_equal(new["params"][norm]["bias"], old["bias"])
        left = new["params"][norm]["scale"] / np.sqrt(now["var"] + 1e-5)
        np.testing.assert_allclose(left, np.ones_like(left), rtol=1e-5)
    assert [(c.name, bool(c.paths)) for c in changes] == [
        ("CNN/conv_0_0", True),
        ("CNN/conv_1_0", True),
        ("CNN/logits", False),
    ]
    assert (
        changes[2].why == "no product by channel before it is a result of the program"
    )


@pytest.mark.slow
def test_training_mode_and_a_second_fold_change_nothing():
    f, weights = cnn()
    weights["params"]["norm_0_0"]["scale"] *= jnp.array([1.0, 0.0, 1.0, 1.0])  # dead
    x = images(16, 8, 8, 1)
    new, _ = program.fold_batch_norm(f)(weights, x)
    before, after = f(weights, x, True), f(new, x, True)
    np.testing.assert_allclose(after, before, atol=2e-3)  # epsilon weighs differently
    again, _ = program.fold_batch_norm(f)(new, x)
    for path, leaf in tree.flatten(again).items():
        np.testing.assert_allclose(leaf, tree.get(new, path), rtol=1e-5, atol=1e-6)


class Norms(nn.Module):
    """Norms of all kinds behind contractions of all kinds."""

    @nn.compact
    def __call__(self, x):
        def norm(x, **kind):
            return nn.relu(nn.BatchNorm(use_running_average=True, **kind)(x))

        x = norm(nn.Conv(6, (3, 3), name="biased")(x))
        x = nn.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(x)
        x = norm(x, use_scale=False)
        x = norm(nn.Conv(4, (1, 1), feature_group_count=2, name="grouped")(x))
        x = norm(nn.Dense(4, use_bias=False, name="last")(x), use_bias=False)
        x = nn.DenseGeneral((2, 3), axis=(1, 2, 3), name="general")(x)
        return norm(x, axis=(1, 2))


@pytest.mark.slow
def test_norms_of_all_kinds():
    module, x = Norms(), images(2, 4, 4, 2)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(x)))
    weights = lively(shapes)
    new, changes = program.fold_batch_norm(module.apply)(weights, x)
    assert [c.why for c in changes] == [""] * 5
    for i in range(5):
        var = new["batch_stats"][f"BatchNorm_{i}"]["var"]
        scale = new["params"].get(f"BatchNorm_{i}", {}).get("scale", 1.0)
        np.testing.assert_allclose(scale / np.sqrt(var + 1e-5), np.ones_like(var), 1e-4)
    np.testing.assert_allclose(
        module.apply(new, x), module.apply(weights, x), rtol=1e-3, atol=1e-4
    )


def twice(w, x):
    return ((x @ w["k"]) * w["m"][None]) @ w["k"]


def read_too(w, x):
    y = x @ w["k"]
    return y * w["m"][None] + y


def after_relu(w, x):
    return jax.nn.relu(x @ w["k"]) * w["m"][None]


def constant(w, x):
    return (x @ w["k"]) / np.arange(1.0, 4.0, dtype=np.float32)[None]


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (twice, "k is read at 2 places"),
        (read_too, "its output is read at 2 places"),
        (after_relu, "no product by channel before max"),
        (constant, "no product by channel before a constant div"),
    ],
)
def test_what_is_not_folded_says_why(f, why):
    w = {"k": jnp.ones((3, 3)), "m": jnp.arange(1.0, 4.0)}
    new, changes = program.fold_batch_norm(f)(w, jnp.ones((2, 3)))
    assert new is w and changes[0].paths == () and why in changes[0].why


def test_a_lost_function_is_an_error_that_names_the_leaf():
    def f(w, x):
        return x @ w["a"] + x @ w["b"]

    old = {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 3))}
    bad = {**old, "b": 1.1 * jnp.ones((3, 3))}
    good = {**old, "a": (1 + 1e-6) * jnp.ones((3, 3))}
    both = {"a": good["a"], "b": bad["b"]}
    x, parts = (jnp.ones((2, 3)),), [("a", good), ("b", bad)]
    preserve.check("fold", f, old, good, x, parts)
    with pytest.raises(errors.RunError, match=r"^fold: .* 0.05 .* through b$"):
        preserve.check("fold", f, old, both, x, parts)
    lost = {**old, "b": jnp.full((3, 3), jnp.nan)}
    with pytest.raises(errors.RunError, match="through b"):
        preserve.check("fold", f, old, lost, x, [])


def test_a_fold_that_loses_digits_is_an_error():
    def f(w, x):
        return ((x @ w["k"]) - w["mean"][None]) * w["m"][None]

    # In float32 the folded mean is beyond what its leaf can hold.
    w = {"k": jnp.full((1, 1), 1e30), "mean": jnp.full(1, 1e30), "m": jnp.full(1, 1e9)}
    w = {name: jnp.concatenate([x, x], -1) for name, x in w.items()}
    with pytest.raises(errors.RunError, match="fold_batch_norm: .* through k"):
        program.fold_batch_norm(f)(w, jnp.ones((2, 1)))
