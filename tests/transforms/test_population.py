"""One compiled program trains a population: a sweep equals its single runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import schedules
from lib import transforms as T

STEPS = 30
SPARSITY = [0.0, 0.5, 0.75, 0.9]
BITS = [8, 2, 4, 3]
L2 = [0.0, 1e-3, 1e-2, 1e-1]


def data():
    rng = np.random.default_rng(0)
    return jnp.float32(rng.normal(size=(32, 8))), jnp.float32(rng.normal(size=(32, 4)))


def init():
    rng = np.random.default_rng(1)
    return {
        "hidden": {
            "kernel": jnp.float32(rng.normal(size=(8, 16)) / 3),
            "bias": jnp.zeros(16),
        },
        "out": {
            "kernel": jnp.float32(rng.normal(size=(16, 4)) / 4),
            "bias": jnp.zeros(4),
        },
    }


def mse(params, l2):
    x, y = data()
    h = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    out = h @ params["out"]["kernel"] + params["out"]["bias"][None]
    penalty = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
    return jnp.mean((out - y) ** 2) + l2 * penalty


def train(sparsity, bits, l2, *, scheduled, distribution):
    """Returns (first and last loss, code, masks, decoded) of a whole run."""
    if scheduled:
        sparsity = schedules.cubic(initial=0.0, final=sparsity, begin=2, end=20)
    t = T.chain(
        T.prune(sparsity=sparsity, distribution=distribution, every=3),
        T.quantize(bits=bits),
    )
    code, state = t.encode(init())

    def step(carry, i):
        code, state = carry
        params, pull = jax.vjp(lambda c: t.decode(c, state), code)
        loss, grads = jax.value_and_grad(mse)(params, l2)
        (code_grads,) = pull(grads)
        code = jax.tree.map(lambda w, g: w - 0.1 * g, code, code_grads)
        state = t.update(code, state, T.Signals(grads, i, jax.random.key(0)))
        return (code, state), loss

    (code, state), losses = jax.lax.scan(step, (code, state), jnp.arange(STEPS))
    return losses[jnp.array([0, -1])], code, state[0], t.decode(code, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduled", "distribution", "closed_over"),
    [
        pytest.param(False, "layerwise", True, marks=pytest.mark.slow),
        (True, "erk", False),
        pytest.param(True, "layerwise", True, marks=pytest.mark.slow),
        pytest.param(True, "global", True, marks=pytest.mark.slow),
        pytest.param(True, "erk", True, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_equals_its_single_runs(scheduled, distribution, closed_over):
    def run(sparsity, bits, l2):
        return train(sparsity, bits, l2, scheduled=scheduled, distribution=distribution)

    swept = jax.jit(jax.vmap(run))(
        jnp.float32(SPARSITY), jnp.int32(BITS), jnp.float32(L2)
    )
    alone = jax.jit(run)
    ends, _, all_masks, _ = swept
    assert (ends[:, 1] < ends[:, 0]).all() or scheduled
    for i, setting in enumerate(zip(SPARSITY, BITS, L2, strict=True)):
        if closed_over:  # the numbers themselves: each run is a program of its own
            single = jax.jit(lambda setting=setting: run(*setting))()
        else:
            single = alone(*setting)
        one = jax.tree.map(lambda x, i=i: x[i], swept)
        jax.tree.map(np.testing.assert_array_equal, one[2], single[2])
        for a, b in zip(*map(jax.tree.leaves, (one, single)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        gone = sum(int((~m).sum()) for m in single[2].values())
        assert abs(gone - setting[0] * (8 * 16 + 16 * 4)) <= 1
    assert {m.shape[0] for m in all_masks.values()} == {4}
