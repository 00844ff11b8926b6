"""Bias correction and statistics measured anew, against written-out averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib import errors, program


def batches(count=3, shape=(8, 4)):
    rng = np.random.default_rng(1)
    return [(rng.uniform(0, 1, shape).astype(np.float32),) for _ in range(count)]


def drawn(**shapes):
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def coarse(w, *names):
    """Kernels on a grid of quarters, rounded down, which shifts the outputs."""
    return {**w, **{k: np.floor(w[k] * 4) / 4 for k in names}}


def test_one_layer_by_hand():
    def f(w, x):
        return x @ w["k"] + w["b"][None]

    w, data = drawn(k=(4, 3), b=(3,)), batches()
    rounded = coarse(w, "k")
    new, changes = program.correct_bias(f, w, rounded, data, example=data[0])
    mean = np.concatenate([x for (x,) in data]).mean(0)
    np.testing.assert_allclose(new["b"], w["b"] + mean @ (w["k"] - rounded["k"]), 1e-5)
    np.testing.assert_array_equal(new["k"], w["k"])
    assert [c.paths for c in changes] == [("b",)]


def deep(w, x):
    """A bias, a norm's bias behind its multiplier, a subtracted mean, nothing."""
    conv = dict(window_strides=(1, 1), padding="SAME")
    x = x.reshape(-1, 2, 2, 1)
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, w["a"], **conv, dimension_numbers=dims)
    first = x + w["b"].reshape(1, 1, 1, -1)
    x = jax.nn.relu(first).reshape(-1, 12)
    second = (x @ w["c"]) * jnp.exp(w["m"])[None] - (-w["d"])[None]
    third = jnp.tanh(second) @ w["e"] - w["mean"][None]
    return first, second, third, third @ w["last"]


@pytest.mark.slow
def test_after_correction_no_layer_is_shifted():
    shapes = dict(a=(2, 2, 1, 3), b=(3,), c=(12, 4), m=(4,), d=(4,))
    w = drawn(**shapes, e=(4, 3), mean=(3,), last=(3, 2))
    data = batches()
    rounded = coarse(w, "a", "c", "e")
    new, changes = program.correct_bias(deep, w, rounded, data, example=data[0])
    run = jax.jit(deep)

    def means(w):
        outs = [run(w, *batch)[:3] for batch in data]
        layers = [np.concatenate(layer) for layer in zip(*outs, strict=True)]
        return [y.mean(tuple(range(y.ndim - 1))) for y in layers]

    corrected = {**rounded, **{k: new[k] for k in ("b", "d", "mean")}}
    for exact, before, after in zip(
        means(w), means(rounded), means(corrected), strict=True
    ):
        assert np.abs(before - exact).max() > 0.05
        np.testing.assert_allclose(after, exact, atol=1e-4)
    assert [c.paths for c in changes] == [("b",), ("d",), ("mean",), ()]
    assert "no sum with a weight" in changes[3].why


def test_bad_batches():
    def f(w, x):
        return x @ w["k"] + w["b"][None]

    w, (x,) = drawn(k=(4, 3), b=(3,)), batches()[0]
    with pytest.raises(errors.UserError, match="got no batches"):
        program.correct_bias(f, w, w, [], example=(x,))
    with pytest.raises(errors.UserError, match="NaN or infinity"):
        program.correct_bias(f, w, w, [(x * np.nan,)], example=(x,))


class Norm(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x):
        calls = self.variable("count", "calls", lambda: jnp.zeros(()))
        fixed = self.variable("count", "fixed", lambda: jnp.ones(()))
        calls.value = calls.value * fixed.value + x.sum() * calls.value
        return nn.BatchNorm(use_running_average=False, momentum=self.momentum)(x)


def renewed(momentum, data):
    module = Norm(momentum)
    made = module.init(jax.random.key(0), jnp.asarray(data[0][0]))
    params = made.pop("params")

    def update(variables, x):
        return module.apply(
            {"params": params, **variables}, x, mutable=["batch_stats", "count"]
        )[1]

    made["count"]["calls"] = jnp.float32(7)
    return program.reestimate(update, dict(made), data)


@pytest.mark.slow
def test_statistics_are_the_mean_over_the_batches_whatever_the_momentum():
    data = batches()
    for momentum in (0.99, 0.5):
        found, changes = renewed(momentum, data)
        stats = found["batch_stats"]["BatchNorm_0"]
        mean = np.mean([x.mean(0) for (x,) in data], 0)
        var = np.mean([x.var(0) for (x,) in data], 0)
        np.testing.assert_allclose(stats["mean"], mean, rtol=1e-4)
        np.testing.assert_allclose(stats["var"], var, rtol=1e-4)
        assert found["count"]["calls"] == 7
        why = {c.name: c.why for c in changes}
        assert why["count/calls"] == "it is no running average"
        assert why["count/fixed"] == "training does not update it"
        assert why["batch_stats/BatchNorm_0/mean"] == ""


def test_no_statistics_and_no_batches():
    def update(variables, x):
        return variables

    with pytest.raises(errors.UserError, match="keeps no running statistics"):
        program.reestimate(update, {}, batches())
    with pytest.raises(errors.UserError, match="got no batches"):
        program.reestimate(update, {"a": jnp.ones(2)}, [])
