"""Slots of renewed weights begin anew, whatever optimiser they belong to.

The oracle knows nothing of paths: every slot is compared with the same slot of a run
whose weights are marked, in a walk written down by optimiser.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import transforms as T
from lib.train import restart
from tests.train import jobs


def params(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    # A bias as long as the kernel's rows, a factored leaf, a leaf named as another's
    # end, and one of the shape of another.
    return {
        "enc": {"kernel": {"u": draw(4, 4), "v": draw(4, 4)}, "bias": draw(4)},
        "kernel": {"u": draw(4, 4)},
        "head": {"kernel": draw(4, 3), "bias": draw(3)},
    }


FRESH = {
    "enc/kernel/u": np.arange(16).reshape(4, 4) % 3 == 0,
    "head/kernel": np.arange(12).reshape(4, 3) % 2 == 0,
    "head/bias": np.asarray([True, False, False]),
}


def kernels(tree):
    return jax.tree_util.tree_map_with_path(lambda p, _: "bias" not in str(p), tree)


def labels(tree):
    return jax.tree.map(lambda k: "k" if k else "b", kernels(tree))


ADAM = optax.adam(1e-2)

# name -> (optimiser, state -> the trees of slots that are one a weight)
OPTIMIZERS = {
    "adam": (ADAM, lambda s: [s[0].mu, s[0].nu]),
    "adamw with a mask": (
        optax.adamw(1e-2, mask=kernels),
        lambda s: [s[0].mu, s[0].nu],
    ),
    "momentum": (optax.sgd(1e-2, momentum=0.9), lambda s: [s[0].trace]),
    "lion": (optax.lion(1e-2), lambda s: [s[0].mu]),
    "adafactor, factored": (
        optax.adafactor(1e-2, min_dim_size_to_factor=4, momentum=0.9),
        # Of what is factored, v is one number; the rest is a matter of `unfactored`.
        lambda s: [unfactored(s), *momenta(s)],
    ),
    "adafactor, whole": (
        optax.adafactor(1e-2, min_dim_size_to_factor=99),
        lambda s: [s[0].v],
    ),
    "every second step": (
        optax.MultiSteps(ADAM, 2).gradient_transformation(),
        lambda s: [s.acc_grads, s.inner_opt_state[0].mu, s.inner_opt_state[0].nu],
    ),
    "injected": (
        optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
        lambda s: [s.inner_state[0].mu, s.inner_state[0].nu],
    ),
    "masked": (
        optax.masked(ADAM, kernels),
        lambda s: [s.inner_state[0].mu, s.inner_state[0].nu],
    ),
    "by label": (
        optax.multi_transform({"k": ADAM, "b": optax.sgd(0.1, 0.9)}, labels),
        lambda s: [
            s.inner_states["k"].inner_state[0].mu,
            s.inner_states["k"].inner_state[0].nu,
            s.inner_states["b"].inner_state[0].trace,
        ],
    ),
    "clipped": (
        optax.chain(optax.clip_by_global_norm(1.0), ADAM),
        lambda s: [s[1][0].mu, s[1][0].nu],
    ),
}


def unfactored(state):
    """Returns Adafactor's second moments that have their weight's shape."""
    return jax.tree.map(
        lambda v, w: v if v.shape == w.shape else optax.MaskedNode(),
        state[0].v,
        params(),
    )


def momenta(state):
    return [s.ema for s in state if isinstance(s, optax.EmaState)]


def trained(optimizer, steps=3):
    code, state = params(), optimizer.init(params())
    for seed in range(1, steps + 1):
        updates, state = optimizer.update(params(seed), state, code)
        code = optax.apply_updates(code, updates)
    return code, state


def at(tree, path):
    for name in path.split("/"):
        if isinstance(tree, optax.MaskedNode):
            return tree
        tree = tree[name]
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_of_fresh_weights_are_the_first_and_no_others_change(name):
    optimizer, slots_of = OPTIMIZERS[name]
    code, state = trained(optimizer)

    @jax.jit
    def renewed(state, code, fresh):
        return restart.slots(optimizer, state, code, fresh)

    new = renewed(state, code, FRESH)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(new)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(state)
    ]
    changed = 0
    for slots, before in zip(slots_of(new), slots_of(state), strict=True):
        for path, anew in FRESH.items():
            slot, old = at(slots, path), at(before, path)
            if isinstance(slot, optax.MaskedNode):
                continue
            assert np.abs(np.asarray(old)[anew]).max() > 0
            np.testing.assert_array_equal(slot, np.where(anew, 0, old))
            changed += int((np.asarray(slot) != old).sum())
    assert changed > 0
    # Nothing else: as many numbers differ in the whole state as there did.
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True)
    assert sum(int((a != b).sum()) for a, b in pairs) == changed

    # The state goes on through the optimiser, and nothing compiles twice.
    renewed(optimizer.update(params(9), new, code)[1], code, FRESH)
    assert renewed._cache_size() <= 1


def test_nothing_fresh_is_nothing_done():
    code, state = trained(ADAM)
    assert restart.slots(ADAM, state, code, {}) is state
    assert restart.leaves(code, code, {}) == code


@pytest.mark.slow
def test_leaves_take_the_new_values_where_fresh():
    old, new = params(0), params(1)
    mixed = restart.leaves(old, new, FRESH)
    for path in ("enc/kernel/u", "enc/kernel/v", "enc/bias", "kernel/u", "head/kernel"):
        anew = FRESH.get(path, np.zeros(at(old, path).shape, bool))
        wanted = np.where(anew, at(new, path), at(old, path))
        np.testing.assert_array_equal(at(mixed, path), wanted)


@pytest.mark.slow
def test_grown_weights_start_at_zero_under_adam():
    t = T.rigl(sparsity=0.7, fraction=0.5, every=5, end=15, seed=0)
    job = jobs.make(transform=t, optimize=optax.adam(2e-2), ema=0.9)
    losses, grown, last = [], 0, job.state
    for state, metrics in job.steps(20):
        losses.append(float(metrics["loss"]))
        mu, nu = state.optimizer[0].mu, state.optimizer[0].nu
        for path, mask in state.codec.items():
            layer = path.split("/")[0]
            was = np.asarray(last.codec[path])
            assert mask.sum() == was.sum()  # the sparsity is exact
            anew = np.asarray(mask) & ~was
            grown += anew.sum()
            for tree in (state.code, mu, nu, state.ema):
                assert (np.asarray(tree[layer]["kernel"])[anew] == 0).all()
            # Removed weights stay 0, and nothing pushes them.
            for tree in (state.code, mu, nu, state.ema):
                assert (np.asarray(tree[layer]["kernel"])[~np.asarray(mask)] == 0).all()
            assert (np.asarray(mu[layer]["kernel"])[was & np.asarray(mask)] != 0).any()
        last = state
    assert grown > 20
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
