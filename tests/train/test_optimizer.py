"""Optimisers: the learning rate as a literal table, what decays, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors
from lib.train import optimizer

RATES = {
    # peak 2, warm-up over 10 of 100 steps; then at 10, halfway and at the end
    ("cosine", 0.1): {0: 0.0, 5: 1.0, 10: 2.0, 55: 1.0, 100: 0.0, 500: 0.0},
    ("linear", 0.1): {0: 0.0, 5: 1.0, 10: 2.0, 55: 1.0, 91: 0.2, 100: 0.0},
    ("constant", 0.1): {0: 0.0, 1: 0.2, 10: 2.0, 100: 2.0},
    ("cosine", 0.0): {0: 2.0, 25: 1.0 + 0.5**0.5, 50: 1.0, 100: 0.0},
    ("linear", 0.0): {0: 2.0, 25: 1.5, 100: 0.0},
    ("constant", 0.0): {0: 2.0, 99: 2.0},
    ("linear", 0.999): {0: 0.0, 50: 1.0, 100: 2.0},
    # a fifth of the peak at the end
    ("exponential", 0.0): {0: 2.0, 50: 2.0 * 0.2**0.5, 100: 0.4},
    ("exponential", 0.1): {0: 0.0, 5: 1.0, 10: 2.0, 55: 2.0 * 0.2**0.5, 100: 0.4},
    # a fifth from step 30 on, a twenty-fifth from 60 on
    ("steps", 0.0): {0: 2.0, 29: 2.0, 30: 0.4, 59: 0.4, 60: 0.08, 100: 0.08},
    ("steps", 0.1): {0: 0.0, 5: 1.0, 10: 2.0, 29: 2.0, 31: 0.4, 60: 0.08},
}
STEPS = dict(drops=(0.3, 0.6), factor=0.2)


@pytest.mark.parametrize("decay, warmup", RATES)
def test_learning_rate_table(decay, warmup):
    rate = optimizer.learning_rate(
        peak=2.0, decay=decay, warmup=warmup, steps=100, **STEPS
    )
    for at, value in RATES[decay, warmup].items():
        np.testing.assert_allclose(rate(at), value, atol=1e-6, err_msg=f"step {at}")
    step = jnp.int32(55)
    np.testing.assert_allclose(jax.jit(rate)(step), rate(55), rtol=1e-6)


@pytest.mark.parametrize("decay", optimizer.DECAYS)
def test_a_stage_of_one_step(decay):
    rate = optimizer.learning_rate(
        peak=2.0, decay=decay, warmup=0.0, steps=1, drops=(0.9,)
    )
    assert rate(0) == 2.0


def test_a_traced_peak_is_the_number():
    def at(peak):
        rate = optimizer.learning_rate(peak=peak, decay="cosine", warmup=0.1, steps=9)
        return rate(4)

    peaks = jnp.array([0.1, 0.5])
    np.testing.assert_allclose(jax.vmap(at)(peaks), [at(0.1), at(0.5)], rtol=1e-6)


PARAMS = {
    "Dense_0": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)},
    "low": {"kernel": {"u": jnp.full((2, 1), 2.0), "v": jnp.full((1, 3), 2.0)}},
    "norm": {"scale": jnp.full(3, 2.0), "bias": jnp.full(3, 2.0)},
    "kernels": {"w": jnp.full(3, 2.0)},
}


def one_update(name, grads, learning_rate=0.5, **settings):
    made = optimizer.build(
        name,
        learning_rate=optax.constant_schedule(learning_rate),
        **{**dict(weight_decay=0.0, momentum=0.0, clip=0.0), **settings},
    )
    updates, _ = made.update(grads, made.init(PARAMS), PARAMS)
    return updates


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_only_kernels_decay(name):
    updates = one_update(name, jax.tree.map(jnp.zeros_like, PARAMS), weight_decay=0.1)
    for layer, leaves in updates.items():
        for leaf, change in leaves.items():
            # rate * decay * weight = 0.5 * 0.1 * 2
            wanted = -0.1 if leaf == "kernel" else 0.0
            for x in jax.tree.leaves(change):
                np.testing.assert_allclose(x, wanted, atol=1e-7, err_msg=layer)


def test_sgd_is_the_gradient_times_the_rate():
    updates = one_update("sgd", jax.tree.map(jnp.ones_like, PARAMS))
    jax.tree.map(lambda x: np.testing.assert_allclose(x, -0.5), updates)


@pytest.mark.parametrize(
    "name, wanted",
    # m = 1, 1.5, 1.75; nesterov's steps are the gradient and half of the new m
    [("sgd", [-1.0, -1.5, -1.75]), ("nesterov", [-1.5, -1.75, -1.875])],
)
def test_momentum_sums_up(name, wanted):
    made = optimizer.build(
        name,
        learning_rate=optax.constant_schedule(1.0),
        weight_decay=0.0,
        momentum=0.5,
        clip=0.0,
    )
    grad, state, seen = {"kernel": jnp.ones(1)}, None, []
    state = made.init(grad)
    for _ in range(3):
        updates, state = made.update(grad, state, grad)
        seen.append(float(updates["kernel"][0]))
    assert seen == wanted


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_that_grows_rises_from_nothing(name):
    made = optimizer.build(
        name,
        learning_rate=optax.constant_schedule(0.5),
        weight_decay=0.4,
        momentum=0.0,
        clip=0.0,
        growing=4,
    )
    weights, seen = {"kernel": jnp.full(1, 2.0)}, []
    state = made.init(weights)
    for _ in range(6):
        updates, state = made.update({"kernel": jnp.zeros(1)}, state, weights)
        seen.append(float(updates["kernel"][0]))
    # rate * decay * weight = 0.5 * 0.4 * 2, a quarter of it more at each step
    np.testing.assert_allclose(seen, [0, -0.1, -0.2, -0.3, -0.4, -0.4], atol=1e-6)


def test_first_step_of_adam_is_the_sign():
    grads = jax.tree.map(lambda x: -3 * jnp.ones_like(x), PARAMS)
    updates = one_update("adamw", grads, momentum=0.9)
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 0.5, rtol=1e-4), updates)


@pytest.mark.slow
def test_clip_limits_the_global_norm():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    size = sum(x.size for x in jax.tree.leaves(PARAMS))
    updates = one_update("sgd", grads, learning_rate=1.0, clip=2.0)
    np.testing.assert_allclose(optax.tree.norm(updates), 2.0, rtol=1e-6)
    updates = one_update("sgd", grads, learning_rate=1.0, clip=100.0)
    np.testing.assert_allclose(optax.tree.norm(updates), size**0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(peak=0.0), "learning_rate is above 0, got 0.0"),
        (dict(peak=-1.0), "learning_rate is above 0, got -1.0"),
        (dict(peak=float("nan")), "learning_rate is above 0, got nan"),
        (dict(warmup=1.0), r"warmup is a share of the steps in \[0, 1\), got 1.0"),
        (dict(warmup=-0.1), "warmup is a share"),
        (dict(decay="cosinus"), "unknown decay of the learning rate 'cosinus'; did"),
        (dict(decay="steps"), r"needs drops, .*, got drops \(\) and factor 0.1"),
        (dict(decay="steps", drops=(0.6, 0.3)), "got drops \\(0.6, 0.3\\)"),
        (dict(decay="steps", drops=(0.3, 1.0)), "to below 1, and a factor"),
        (dict(decay="steps", drops=(0.1,), warmup=0.2), "from above warmup"),
        (dict(decay="steps", drops=(0.5,), factor=1.0), "and factor 1.0"),
        (dict(decay="exponential", factor=1.5), "a factor between 0 and 1, got 1.5"),
    ],
)
def test_a_learning_rate_out_of_range(change, message):
    settings = dict(peak=1.0, decay="cosine", warmup=0.0, steps=10)
    with pytest.raises(errors.UserError, match=message):
        optimizer.learning_rate(**{**settings, **change})


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(name="adam"), "unknown optimizer 'adam'; did you mean 'adamw'"),
        (dict(weight_decay=-1.0), "'sgd': weight_decay is out of range: -1.0"),
        (dict(momentum=1.0), "'sgd': momentum is out of range: 1.0"),
        (dict(clip=-0.5), "'sgd': clip is out of range: -0.5"),
        (dict(clip=float("nan")), "'sgd': clip is out of range: nan"),
    ],
)
def test_an_optimizer_out_of_range(change, message):
    settings = dict(name="sgd", weight_decay=0.0, momentum=0.0, clip=0.0)
    with pytest.raises(errors.UserError, match=message):
        optimizer.build(
            learning_rate=optax.constant_schedule(1.0), **{**settings, **change}
        )
