"""RigL and SET: what is dropped, what grows, and that the count never changes."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms import sparse_evolution
from tests.train import jobs

KEY = jax.random.key(0)
SHAPES = {"a": (6, 4), "b": (3, 3, 2, 5)}  # 24 and 90 weights
KINDS = {"rigl": T.rigl, "set": T.set_}


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": jnp.asarray(rng.normal(size=shape), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=shape[-1:]), jnp.float32),
        }
        for name, shape in SHAPES.items()
    }


def made(kind="rigl", **changes):
    kept = dict(sparsity=0.6, every=2, end=8, seed=0)
    return KINDS[kind](**{**kept, **changes})


def largest(score, count):
    """The places of the highest scores; of equal ones the first in the array."""
    order = np.lexsort((np.arange(score.size), -score.ravel()))
    mask = np.zeros(score.size, bool)
    mask[order[:count]] = True
    return mask.reshape(score.shape)


def naive_exchange(mask, weight, score, share):
    """Algorithm 1 of Evci et al. 2020 for one layer, with a sort."""
    kept = int(mask.sum())
    moved = round(float(np.float32(share) * np.float32(kept)))
    survives = largest(np.where(mask, np.abs(weight), -np.inf), kept - moved)
    grown = largest(np.where(survives, -np.inf, score), moved)
    assert not (survives & grown).any()
    return survives | grown


def test_literal_step():
    # Half of the four kept go: 0.1 and -0.2. The highest gradients outside {3, -4} are
    # -9 (at 0.1, which stays therefore) and 7.
    t = T.rigl(sparsity=0.5, distribution="layerwise", fraction=0.5, end=4, seed=0)
    code = {"kernel": jnp.float32([[0.1, 0, 3, 0], [-4, 0, -0.2, 0]])}
    before = {"kernel": code["kernel"] != 0}
    grads = {"kernel": jnp.float32([[-9, 1, 50, 2], [60, 3, 4, 7]])}
    after = t.update(code, before, T.Signals(grads, jnp.int32(0), KEY))
    np.testing.assert_array_equal(after["kernel"], [[1, 0, 1, 0], [1, 0, 0, 1]])
    code = {"kernel": code["kernel"].at[1, 3].set(5.0)}  # of a past life
    new, fresh = T.renew(t, code, before, after)
    np.testing.assert_array_equal(
        new["kernel"], np.float32([[0.1, 0, 3, 0], [-4, 0, 0, 0]])
    )
    np.testing.assert_array_equal(fresh["kernel"], [[0, 0, 0, 0], [0, 0, 1, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rigl", pytest.param("set", marks=pytest.mark.slow)])
def test_ten_steps_are_the_naive_ones(kind):
    t = made(kind, every=3, fraction=0.4)
    code, state = t.encode(weights())
    update = jax.jit(t.update)
    changed = 0
    for step in range(10):
        code = jax.tree.map(lambda w, d: w + d, code, weights(step + 1))
        grads, key = weights(50 + step), jax.random.key(step)
        new = update(code, state, T.Signals(grads, jnp.int32(step), key))
        for path, mask in state.items():
            name, mask = path.split("/")[0], np.asarray(mask)
            w, g = (np.asarray(x[name]["kernel"]) for x in (code, grads))
            share = 0.4
            if kind == "rigl":
                score = np.abs(g)
                share *= (1 + math.cos(math.pi * step / 8)) / 2
            else:
                leaf = sparse_evolution._key(key, path)
                score = np.asarray(jax.random.uniform(leaf, w.shape))
            wanted = mask
            if step % 3 == 0 and step < 8:
                wanted = naive_exchange(mask, w, score, share)
            np.testing.assert_array_equal(new[path], wanted)
            changed += int((wanted != mask).sum())
        code, fresh = T.renew(t, code, state, new)
        for path, mask in new.items():
            w = np.asarray(code[path.split("/")[0]]["kernel"])
            anew = np.asarray(fresh[path])
            np.testing.assert_array_equal(anew, np.asarray(mask) != state[path])
            assert (w[anew] == 0).all() and (w[mask & ~anew] != 0).all()
        state = new
    assert changed > 20
    assert update._cache_size() <= 1


@jax.jit
def exchanged(mask, weight, score, share):
    return sparse_evolution.exchange(mask, weight, score, share)


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_an_exchange_is_the_naive_one(seed, share, ties):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 4)) < rng.random()
    weight, score = rng.normal(size=(2, 5, 4)).astype(np.float32)
    if ties:
        weight, score = np.round(weight), np.round(score)
    after = np.asarray(exchanged(mask, weight, np.abs(score), np.float32(share)))
    wanted = naive_exchange(mask, weight, np.abs(score), share)
    np.testing.assert_array_equal(after, wanted)
    assert after.sum() == mask.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "distribution", ["erk", pytest.param("layerwise", marks=pytest.mark.slow)]
)
def test_first_masks_hold_the_exact_counts(distribution):
    sparsities = np.linspace(0, 1, 21, dtype=np.float32)

    @jax.jit
    @jax.vmap
    def swept(sparsity):
        spread = sparse_evolution.SPREADS[distribution]
        counts = spread(sparsity, list(SHAPES.values()))
        t = made(sparsity=sparsity, distribution=distribution)
        return counts, t.encode(weights())

    counts, (code, masks) = swept(sparsities)
    for count, mask in zip(counts, masks.values(), strict=True):
        np.testing.assert_array_equal((~mask).reshape(21, -1).sum(1), count)
    for path, mask in masks.items():  # and removed weights are 0 in the code, too
        w = code[path.split("/")[0]]["kernel"]
        np.testing.assert_array_equal(w != 0, mask)
    _, alone = made(sparsity=0.9, distribution=distribution).encode(weights())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[18], b), masks, alone)


def test_zero_sparsity_is_the_identity():
    t, params = made(sparsity=0.0, fraction=0.9), weights()
    code, state = t.encode(params)
    jax.tree.map(np.testing.assert_array_equal, t.decode(code, state), params)
    # What is dropped wins its place back, as there is no other, and keeps its value.
    full = jnp.ones((5, 4), bool)
    weight = params["a"]["kernel"][:5]
    assert exchanged(full, weight, jnp.abs(weight), jnp.float32(0.9)).all()


def test_first_masks_depend_on_the_seed_and_the_path_only():
    params = weights()
    _, one = made().encode(params)
    _, jitted = jax.jit(made().encode)(params)
    _, alone = made(distribution="layerwise").encode({"b": params["b"]})
    _, layerwise = made(distribution="layerwise").encode(params)
    _, other = made(seed=1).encode(params)
    jax.tree.map(np.testing.assert_array_equal, one, jitted)
    np.testing.assert_array_equal(alone["b/kernel"], layerwise["b/kernel"])
    assert (one["b/kernel"] != other["b/kernel"]).any()


def test_gradient_is_masked_and_frozen_is_decoded():
    t = T.chain(made(), T.quantize(bits=4))
    code, state = t.encode(weights())
    decoded = jax.jit(t.decode)(code, state)
    thawed = representations.thaw(t.freeze(code, state))
    for a, b in zip(jax.tree.leaves(decoded), jax.tree.leaves(thawed), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    _, pull = jax.vjp(lambda c: t.decode(c, state), code)
    (grads,) = pull(weights(1))
    for path, mask in state[0].items():
        g = np.asarray(weights(1)[path.split("/")[0]]["kernel"])
        found = grads[path.split("/")[0]]["kernel"]
        np.testing.assert_array_equal(found, np.where(mask, g, 0))


@pytest.mark.slow
def test_it_trains_in_a_chain():
    t = T.chain(made(sparsity=0.5, every=4, end=16), T.quantize(bits=5))
    losses, masks = [], []
    for state, metrics in jobs.make(transform=t).steps(20):
        losses.append(float(metrics["loss"]))
        masks.append({p: np.asarray(m) for p, m in state.codec[0].items()})
        for path, mask in masks[-1].items():
            w = np.asarray(state.code[path.split("/")[0]]["kernel"])
            assert (w[~mask] == 0).all()
            assert mask.sum() == masks[0][path].sum()
    assert any((masks[0][p] != masks[-1][p]).any() for p in masks[0])
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_within_what_a_technique_before_it_keeps():
    # The gradient at what prune removes is 0, so nothing grows there.
    t = T.chain(T.prune(sparsity=0.5), made(sparsity=0.5, distribution="layerwise"))
    code, state = t.encode({"kernel": weights()["b"]["kernel"]})
    grads = {"kernel": jnp.ones(SHAPES["b"])}
    after = jax.jit(t.update)(code, state, T.Signals(grads, jnp.int32(0), KEY))
    grown = after[1]["kernel"] & ~state[1]["kernel"]
    assert grown.sum() > 0 and not (grown & ~state[0]["kernel"]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_orders_without_a_meaning_are_refused(kind):
    with pytest.raises(errors.UserError, match=f"{kind} before .*again before it lea"):
        T.plan(T.chain(made(kind), T.prune(sparsity=0.5)), weights())


def halves():
    """Stores a leaf otherwise: as its upper and its lower rows."""
    return T.on_leaves(
        "halves",
        "kernel",
        lambda leaves: (
            {p: {"top": w[:1], "rest": w[1:]} for p, w in leaves.items()},
            dict.fromkeys(leaves, ()),
        ),
        lambda codes, states: {
            p: jnp.concatenate([c["top"], c["rest"]]) for p, c in codes.items()
        },
        lambda leaves, states: leaves,
    )


def test_later_techniques_must_leave_its_weights_in_place():
    with pytest.raises(errors.UserError) as e:
        T.plan(T.chain(made(), halves()), weights())
    assert "put rigl after it" in str(e.value)
    T.plan(T.chain(halves(), made()), weights())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.5}, "rigl: sparsity is from 0 to 1, got 1.5"),
        ({"sparsity": lambda step: 0.5}, "rigl: sparsity stays as it is"),
        ({"fraction": -0.1}, "rigl: fraction is from 0 to 1, got -0.1"),
        ({"every": 0}, "rigl: every is 1 or more steps, got 0"),
        ({"end": -1}, "rigl: end is 0 or more steps, got -1"),
        (
            {"distribution": "global"},
            "unknown distribution of rigl 'global'; valid: erk, layerwise",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        made(**settings)
    assert message in str(e.value)
