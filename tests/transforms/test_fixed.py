"""Fixed leaves: what is not in the code is not trained, and comes back as it was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, models, representations, tree
from lib import transforms as T
from lib.train import loop, parallel, step
from tests.train import jobs

FEATURES = "dense_0/"


def params():
    rng = np.random.default_rng(0)
    flat = {
        "enc/kernel": rng.normal(size=(4, 3)),
        "enc/bias": rng.normal(size=3),
        "head/kernel": rng.normal(size=(3, 2)),
    }
    return tree.unflatten({p: jnp.asarray(x, jnp.float32) for p, x in flat.items()})


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def test_the_code_is_what_is_left():
    p = params()
    t = T.fixed(pattern="enc/")
    code, state = t.encode(p)
    assert code == {
        "enc": {"kernel": {}, "bias": {}},
        "head": {"kernel": p["head"]["kernel"]},
    }
    assert state == {
        "enc/kernel": p["enc"]["kernel"],
        "enc/bias": p["enc"]["bias"],
    }
    decode = jax.jit(t.decode)
    for moved in (code, jax.tree.map(lambda w: w + 1, code)):
        wanted = tree.replace(p, {"head/kernel": moved["head"]["kernel"]})
        same_bytes(decode(moved, state), wanted)
        frozen = t.freeze(jax.device_get(moved), jax.device_get(state))
        assert isinstance(frozen["enc"]["kernel"], representations.Dense)
        same_bytes(representations.thaw(frozen), wanted)
    assert decode._cache_size() <= 1
    assert {r.path: r.taken_by for r in T.plan(t, p)} == {
        "enc/kernel": "fixed",
        "enc/bias": "fixed",
        "head/kernel": "",
    }


def test_gradients_reach_the_rest_only():
    t = T.fixed(pattern="enc/")
    code, state = t.encode(params())

    def loss(p):
        x = jnp.tanh(p["enc"]["kernel"] + p["enc"]["bias"][None, :])
        return jnp.sum(jnp.sin(x @ p["head"]["kernel"]))

    wanted = jax.grad(loss)(params())
    found = jax.grad(lambda c: loss(t.decode(c, state)))(code)
    same_bytes(found, {"enc": {"kernel": {}, "bias": {}}, "head": wanted["head"]})


def test_everything_may_be_fixed():
    p = params()
    code, state = T.fixed(pattern=".").encode(p)
    assert jax.tree.leaves(code) == []
    same_bytes(T.fixed(pattern=".").decode(code, state), p)


@pytest.mark.slow
def test_after_quantize_the_leaf_keeps_its_bits():
    t = T.chain(T.quantize(bits=4), T.fixed(pattern="enc/"))
    code, state = t.encode(params())
    assert list(tree.flatten(code)) == ["head/kernel"]
    wanted = T.quantize(bits=4)
    decoded = jax.jit(t.decode)(code, state)
    same_bytes(decoded, wanted.decode(*wanted.encode(params())))
    frozen = t.freeze(jax.device_get(code), jax.device_get(state))
    assert frozen["enc"]["kernel"].bits == 4
    same_bytes(representations.thaw(frozen), decoded)


def test_one_factor_of_two():
    """A part of a leaf that an earlier technique took apart."""
    halves = T.on_leaves(
        "halves",
        "head",
        lambda w: (
            {p: {"a": x[:1], "b": x[1:]} for p, x in w.items()},
            {p: () for p in w},
        ),
        lambda c, s: {p: jnp.concatenate([x["a"], x["b"]]) for p, x in c.items()},
        lambda c, s: {
            p: np.concatenate([representations.materialize(x[k]) for k in "ab"])
            for p, x in c.items()
        },
    )
    t = T.chain(halves, T.fixed(pattern="kernel/a$"))
    code, state = t.encode(params())
    assert list(tree.flatten(code)) == ["enc/kernel", "enc/bias", "head/kernel/b"]
    decoded = t.decode(code, state)
    same_bytes(decoded, params())
    same_bytes(representations.thaw(t.freeze(code, state)), decoded)


def test_before_what_comes_later_they_are_gone():
    t = T.chain(T.fixed(pattern="enc/"), T.prune(sparsity=0.5))
    code, state = t.encode(params())
    assert {r.path: r.taken_by for r in T.plan(t, params())} == {
        "enc/kernel": "fixed",
        "enc/bias": "fixed",
        "head/kernel": "prune(sparsity=0.5, layerwise)",
    }
    same_bytes(t.decode(code, state)["enc"], params()["enc"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.fixed(pattern="hed"), "rule 'hed' matches nothing"),
        (
            lambda: T.chain(T.fixed(pattern="kernel"), T.prune(sparsity=0.5)),
            "matches nothing; nearest of 1: enc/bias",
        ),
        (
            lambda: T.chain(
                T.rigl(
                    sparsity=0.5,
                    distribution="layerwise",
                    fraction=0.3,
                    every=5,
                    end=20,
                    seed=0,
                ),
                T.fixed(pattern="enc/kernel"),
            ),
            "enc/kernel: rigl before fixed: rigl works by moving weights",
        ),
    ],
)
def test_rules_without_a_meaning(make, message):
    for mistake in (lambda: make().encode(params()), lambda: T.plan(make(), params())):
        with pytest.raises(errors.UserError) as e:
            mistake()
        assert message in str(e.value)


def job(**settings):
    """A network of which only the last layer is trained, with everything that moves."""
    return jobs.make(
        transform=T.fixed(pattern=FEATURES),
        terms=("cross_entropy", "l2"),
        optimize=optax.adamw(1e-2, weight_decay=0.1),
        ema=0.9,
        **settings,
    )


@functools.cache
def start():
    return jax.device_get(models.init(jobs.mlp(), jax.random.key(0), jobs.SHAPE)[0])


def check_trained(recipe, state):
    """The features are as they were, to the bit; the head is not, and has learnt."""
    for code in (state.code, step.trained(state)):
        decoded = jax.device_get(recipe.transform.decode(code, state.codec))
        same_bytes(decoded["dense_0"], start()["dense_0"])
        assert (decoded["logits"]["kernel"] != start()["logits"]["kernel"]).all()
    slots = [x.shape for x in jax.tree.leaves(state.optimizer)]
    assert sorted(slots) == [(), (4,), (4,), (8, 4), (8, 4)]  # a count and two moments


@functools.cache
def alone():
    one = job()
    states, metrics = zip(*one.steps(10), strict=True)
    check_trained(one.recipe, states[-1])
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    return states[-1]


def test_the_rest_is_trained():
    alone()


@pytest.mark.parametrize("by", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_on_eight_devices_as_on_one(by):
    one = job()
    advance = functools.partial(step.advance, one.recipe, one.feed.take)
    runner = parallel.PARALLEL[by](advance)
    state, _ = runner.run(
        runner.put(one.state), one.feed.next(10), runner.put(one.fixed)
    )
    state = runner.get(state)
    check_trained(one.recipe, state)
    jobs.close(state.code, alone().code, 1e-4)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_the_same(tmp_path):
    whole = jobs.fit(job(), tmp_path / "whole", steps=10)
    jobs.fit(job(), tmp_path / "parts", steps=5)
    resumed = jobs.fit(job(), tmp_path / "parts", steps=10)
    jobs.same(jax.device_get(resumed), jax.device_get(whole))
    check_trained(job().recipe, resumed)


@pytest.mark.slow
def test_what_is_not_finite_is_named(tmp_path):
    broken = job()
    codec = {p: jnp.full_like(w, jnp.nan) for p, w in broken.state.codec.items()}
    broken = broken._replace(state=broken.state._replace(codec=codec))
    with pytest.raises(loop.NotFinite, match="at step 1; terms: .*cross_entropy"):
        jobs.fit(broken, tmp_path, steps=5)
