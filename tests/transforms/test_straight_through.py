"""Straight-through masks: sparse forward, dense backward, N:M and its decay."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, representations, schedules
from lib import transforms as T
from tests.train import jobs

KEY = jax.random.key(0)
MADE = {
    "ste": lambda: T.ste(sparsity=0.6, distribution="global"),
    "sr_ste": lambda: T.sr_ste(n=1, m=2, decay=0.1),
}


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)},
        "b": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
        },
    }


def same_bytes(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def naive_n_of_m(w, n, m):
    """Keeps the n largest of m, group by group, output by output."""
    seen = np.asarray(w).reshape(-1, w.shape[-1])
    mask = np.zeros(seen.shape, bool)
    for out in range(seen.shape[1]):
        for start in range(0, seen.shape[0], m):
            group = np.abs(seen[start : start + m, out])
            best = sorted(range(m), key=lambda i: (-group[i], i))[:n]
            mask[start + np.asarray(best), out] = True
    return mask.reshape(w.shape)


def test_literal_two_of_four():
    w = jnp.float32([[1, 9], [-3, 9], [2, 9], [0, 9], [0, -1], [0, 2], [5, 0], [4, 1]])
    t = T.sr_ste(n=2, m=4, decay=2.0)
    code, state = t.encode({"kernel": w})
    wanted = [[0, 9], [-3, 9], [2, 0], [0, 0], [0, 0], [0, 2], [5, 0], [4, 0]]
    decoded = t.decode(code, state)["kernel"]
    # Of equal ones the first stay: of column 1 the first of 9, 9, 9, 9 and of -1, 1.
    wanted[4][1] = -1
    np.testing.assert_array_equal(decoded, np.float32(wanted))
    # decay / 2 * (1 + 9^2 + 9^2 + 1) of what is removed
    assert float(t.penalty(code, state)) == 164.0


@pytest.mark.slow
@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 2**32 - 1), st.booleans())
def test_n_of_m_is_the_naive_one(seed, ties):
    params = weights(seed)
    if ties:
        params = jax.tree.map(jnp.round, params)
    _, state = MADE["sr_ste"]().encode(params)
    for path, mask in state.items():
        w = params[path.split("/")[0]]["kernel"]
        np.testing.assert_array_equal(mask, naive_n_of_m(w, 1, 2))


@pytest.mark.parametrize(
    "distribution", [pytest.param("erk", marks=pytest.mark.slow), "global", "layerwise"]
)
def test_ste_masks_are_those_of_one_shot_pruning(distribution):
    settings = dict(sparsity=0.7, distribution=distribution)
    t, prune, params = T.ste(**settings), T.prune(**settings), weights()
    code, state = t.encode(params)
    same_bytes(t.decode(code, state), prune.decode(*prune.encode(params)))
    jax.tree.map(np.testing.assert_array_equal, code, params)  # all are trained


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_the_gradient_passes_and_what_is_frozen_is_decoded(kind):
    for t in (
        T.chain(T.quantize(bits=4), MADE[kind]()),
        T.chain(T.prune(sparsity=0.3), MADE[kind](), T.quantize(bits=4)),
    ):
        code, state = t.encode(weights())
        decoded = jax.jit(t.decode)(code, state)
        same_bytes(decoded, representations.thaw(t.freeze(code, state)))
    t = MADE[kind]()
    code, state = t.encode(weights())
    _, pull = jax.vjp(lambda c: t.decode(c, state), code)
    same_bytes(pull(weights(1))[0], weights(1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_masks_follow_the_weights(kind):
    t = MADE[kind]()
    code, state = t.encode(weights())
    update = jax.jit(t.update)
    for step in range(3):
        code = weights(step + 1)
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        jax.tree.map(np.testing.assert_array_equal, state, t.encode(code)[1])
    assert update._cache_size() <= 1


def test_every_and_a_schedule():
    rising = schedules.linear(initial=0.0, final=0.5, begin=0, end=4)
    t = T.ste(sparsity=rising, every=2)
    code, state = t.encode(weights())
    update = jax.jit(t.update)
    removed = []
    for step in range(6):
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        removed.append(int((~state["a/kernel"]).sum()))
    assert removed == [0, 0, 6, 6, 12, 12]  # of 24


@pytest.mark.slow
def test_traced_sparsity_is_untraced_sparsity():
    swept = jax.jit(jax.vmap(lambda s: T.ste(sparsity=s).encode(weights())[1]))
    masks = swept(jnp.float32([0.0, 0.3, 0.9]))
    for i, sparsity in enumerate((0.0, 0.3, 0.9)):
        _, alone = T.ste(sparsity=sparsity).encode(weights())
        for path, mask in alone.items():
            np.testing.assert_array_equal(masks[path][i], mask)


def test_no_strength_is_the_identity():
    params = weights()
    for t in (T.ste(sparsity=0.0), T.sr_ste(n=2, m=2)):
        same_bytes(t.decode(*t.encode(params)), params)
    assert float(t.penalty(*t.encode(params))) == 0


@pytest.mark.slow
def test_a_step_of_sr_ste_is_that_of_the_paper():
    # w - rate * (g + decay * (1 - mask) * w), g at the masked weights.
    plain = jobs.make(optimize=optax.sgd(0.1))
    t = T.sr_ste(n=1, m=4, decay=0.3, pattern="dense_0/kernel")
    job = jobs.make(transform=t, optimize=optax.sgd(0.1))
    w = np.asarray(job.state.code["dense_0"]["kernel"])
    mask = naive_n_of_m(w, 1, 4)
    code = plain.state.code
    masked = {**code, "dense_0": {**code["dense_0"], "kernel": jnp.asarray(w * mask)}}
    ((after, _),) = plain._replace(state=plain.state._replace(code=masked)).steps(1)
    moved = np.asarray(after.code["dense_0"]["kernel"]) - w * mask  # -rate * g
    ((state, metrics),) = job.steps(1)
    wanted = w + moved - 0.1 * 0.3 * np.where(mask, 0, w)
    np.testing.assert_allclose(
        state.code["dense_0"]["kernel"], wanted, rtol=0, atol=1e-6
    )
    penalty = 0.15 * np.sum(np.where(mask, 0, w) ** 2)
    np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_it_trains(kind):
    t = T.chain(MADE[kind](), T.quantize(bits=5))
    losses = [float(m["loss"]) for _, m in jobs.make(transform=t).steps(20)]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.ste(sparsity=2), "ste: sparsity is the fraction removed"),
        (lambda: T.ste(sparsity=0.5, every=0), "ste: every is at least 1 step, got 0"),
        (
            lambda: T.ste(sparsity=0.5, distribution="globl"),
            "unknown distribution of sparsity 'globl'; did you mean 'global'?",
        ),
        (lambda: T.sr_ste(n=0, m=4), "1 <= n <= m, got n=0, m=4"),
        (lambda: T.sr_ste(n=5, m=4), "1 <= n <= m, got n=5, m=4"),
        (lambda: T.sr_ste(n=2, m=4, decay=-1), "sr_ste: decay is at least 0, got -1"),
        (
            lambda: T.sr_ste(n=2, m=4).encode(weights()),
            "groups of 4 do not divide the 18 inputs of b/kernel with shape (3, 3, 2, ",
        ),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(errors.UserError) as e:
        make()
    assert message in str(e.value)
    assert "\n" not in str(e.value)
