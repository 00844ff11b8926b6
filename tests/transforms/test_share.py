"""Shared values: how many there are, which zeros stay, gradients, and frozen tables."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, tree
from lib import transforms as T
from lib.deploy import artifact

SHAPES = {"a": (6, 7), "b": (2, 1, 3, 7)}  # of one size, so compiled for once


def weights(seed=0, zeros=0.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    params = {"a": {"bias": jnp.ones(7)}, "b": {}}
    for name, shape in SHAPES.items():
        w = np.where(rng.uniform(size=shape) < zeros, 0, rng.normal(size=shape))
        params[name]["kernel"] = jnp.asarray(w, dtype)
    return params


def kernels(params):
    return {p: np.asarray(w) for p, w in tree.flatten(params).items() if "kernel" in p}


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def check_frozen(t, code, state, tmp_path=None):
    """Frozen is decoded, bit for bit, also from the file."""
    frozen, decoded = t.freeze(code, state), jax.jit(t.decode)(code, state)
    same_bytes(representations.thaw(frozen), decoded)
    if tmp_path:
        artifact.save(tmp_path / "file", frozen)
        same_bytes(artifact.materialize(artifact.load(tmp_path / "file")), decoded)
    return frozen


@pytest.mark.slow
def test_literal():
    w = jnp.float32([[0, 1.0, 1.3, 0], [-3, 0, 5.0, 5.4]])
    t = T.share(bits=2)
    code, state = t.encode({"kernel": w})
    np.testing.assert_allclose(code["kernel"], [0, -3, 1.15, 5.2], rtol=1e-6)
    expected = [[0, 2, 2, 0], [1, 0, 3, 3]]
    np.testing.assert_array_equal(state["kernel"]["indices"], expected)
    assert state["kernel"]["indices"].dtype == jnp.uint8
    assert bool(state["kernel"]["zero"])
    decoded = t.decode(code, state)["kernel"]
    np.testing.assert_array_equal(decoded, code["kernel"][np.array(expected)])
    # Without zeros, none is added.
    code, state = t.encode({"kernel": jnp.where(w == 0, 1.0, w)})
    assert not state["kernel"]["zero"]
    np.testing.assert_allclose(sorted(code["kernel"]), [-3, 1, 1.3, 5.2], 1e-6)


@pytest.mark.slow
@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
def test_few_values_and_zeros_stay(seed, zeros):
    params = weights(seed, zeros)
    t = SHARE
    once = t.decode(*t.encode(params))
    for path, w in kernels(once).items():
        given = kernels(params)[path]
        assert len(np.unique(w)) <= 4
        assert (w[given == 0] == 0).all()
    same_bytes({"bias": once["a"]["bias"]}, {"bias": params["a"]["bias"]})
    same_bytes(t.decode(*t.encode(once)), once)


SHARE = T.share(bits=2, iterations=20)


def test_enough_bits_are_the_identity():
    params = weights(zeros=0.3)
    t = T.share(bits=9)
    code, state = t.encode(params)
    same_bytes(t.decode(code, state), params)
    # No more entries than weights.
    assert {c.shape for c in kernels(code).values()} == {(42,)}
    assert state["a/kernel"]["indices"].dtype == jnp.uint16
    check_frozen(t, code, state)


def moved(code, by=1.0):
    """What an optimiser might do to it, the entry of the zeros included."""
    return jax.tree.map(lambda c: c + jnp.asarray(by, c.dtype), code)


LATER = {
    "none": T.identity(),
    "symmetric": T.quantize(bits=3, granularity="tensor"),
    "affine": T.quantize(bits=3, symmetric=False, granularity="tensor"),
    "pruned": T.prune(sparsity=0.4),
    "again": T.share(bits=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("later", LATER)
def test_zeros_stay_whatever_comes_later(later, tmp_path):
    params = weights(zeros=0.4)
    t = T.chain(T.keep(), SHARE, LATER[later])
    code, state = t.encode(params)
    for by in (0.0, 1.0):
        code = moved(code, by)
        decoded = t.decode(code, state)
        for path, w in kernels(params).items():
            found = kernels(decoded)[path]
            assert (found[w == 0] == 0).all()
            assert len(np.unique(found)) <= 4
        frozen = check_frozen(t, code, state, tmp_path)
        # And in the table itself, not only below the mask.
        for path, w in kernels(params).items():
            book = tree.get(frozen, path).values
            assert isinstance(book, representations.Codebook)
            table = representations.materialize(representations.of(book.centroids))
            assert table[0] == 0 and (w == 0).any()


@pytest.mark.slow
def test_pruned_before_and_after():
    params = weights()
    t = T.chain(T.prune(sparsity=0.5), T.share(bits=3))
    code, state = t.encode(params)
    masked = T.chain(T.prune(sparsity=0.5)).encode(params)[1][0]
    for path, w in kernels(t.decode(code, state)).items():
        np.testing.assert_array_equal(w != 0, masked[path])
    check_frozen(t, code, state)
    # A shared value that is pruned takes all of its weights with it.
    t = T.chain(SHARE, T.prune(sparsity=0.5))
    code, state = t.encode(params)
    for w in kernels(t.decode(code, state)).values():
        assert len(np.unique(w[w != 0])) == 2
    check_frozen(t, code, state)
    t = T.chain(T.quantize(bits=3), SHARE)
    check_frozen(t, *t.encode(params))


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_gradients_are_summed_by_cluster(zeros):
    params = weights(zeros=zeros)
    code, state = SHARE.encode(params)
    rng = np.random.default_rng(1)
    upstream = jax.tree.map(lambda w: jnp.float32(rng.normal(size=w.shape)), params)
    (grads,) = jax.vjp(lambda c: SHARE.decode(c, state), code)[1](upstream)
    for path, up in kernels(upstream).items():
        indices = np.asarray(state[path]["indices"])
        expected = [up[indices == i].sum() for i in range(4)]
        if zeros:
            expected[0] = 0  # it is not trained
        np.testing.assert_allclose(kernels(grads)[path], expected, 1e-5, 1e-6)


@pytest.mark.slow
def test_global_is_one_codebook(tmp_path):
    params = weights(zeros=0.3)
    t = T.share(bits=3, scope="global", start="density", iterations=20)
    code, state = t.encode(params)
    assert code["a"]["kernel"].shape == (8,) and code["b"]["kernel"] == {}
    decoded = kernels(t.decode(code, state))
    given = np.concatenate([w.ravel() for w in kernels(params).values()])
    together = np.concatenate([w.ravel() for w in decoded.values()])
    assert len(np.unique(together)) == 8 and (together[given == 0] == 0).all()
    # The same as one leaf of all weights; where dicts are in another order as well.
    alone = T.share(bits=3, start="density", iterations=20)
    whole = alone.decode(*alone.encode({"kernel": jnp.asarray(given)}))["kernel"]
    np.testing.assert_array_equal(together, whole)
    other = t.encode({"b": params["b"], "a": params["a"]})[0]
    np.testing.assert_array_equal(other["a"]["kernel"], code["a"]["kernel"])
    frozen = check_frozen(t, moved(code), state, tmp_path)
    assert frozen["a"]["kernel"].centroids is frozen["b"]["kernel"].centroids
    (grads,) = jax.vjp(lambda c: t.decode(c, state), code)[1](params)
    indices = np.concatenate([np.ravel(state[p]["indices"]) for p in sorted(state)])
    expected = np.bincount(indices, given, 8)
    np.testing.assert_allclose(grads["a"]["kernel"], expected, 1e-5, 1e-6)


def test_fixed_values_leave_nothing_to_train(tmp_path):
    params = weights(zeros=0.3)
    t = T.share(bits=2, iterations=20, trained=False)
    code, state = jax.jit(t.encode)(params)
    assert [*tree.flatten(code)] == ["a/bias"]
    same_bytes(t.decode(code, state), SHARE.decode(*SHARE.encode(params)))
    check_frozen(t, code, state, tmp_path)


def test_random_starts_by_seed():
    params = weights()

    def of(seed):
        t = T.share(bits=3, start="random", iterations=0, seed=seed)
        return np.asarray(t.encode(params)[0]["a"]["kernel"])

    assert set(of(0)) <= set(np.ravel(params["a"]["kernel"]))
    np.testing.assert_array_equal(of(0), of(0))
    assert set(of(0)) != set(of(1))


@pytest.mark.slow
def test_bfloat16_stays(tmp_path):
    params = weights(zeros=0.3, dtype=jnp.bfloat16)
    code, state = SHARE.encode(params)
    decoded = SHARE.decode(code, state)
    assert decoded["a"]["kernel"].dtype == code["a"]["kernel"].dtype == jnp.bfloat16
    check_frozen(SHARE, moved(code), state, tmp_path)
    mixed = {"a": params["a"], "b": weights()["b"]}
    with pytest.raises(errors.UserError, match="one dtype.*a/kernel bfloat16"):
        T.share(bits=2, scope="global").encode(mixed)


@pytest.mark.slow
def test_compiles_once_and_maps():
    t = T.chain(T.keep(), SHARE)
    encode, decode = jax.jit(t.encode), jax.jit(t.decode)
    all_params = [weights(seed, zeros) for seed, zeros in ((0, 0.0), (1, 0.5))]
    for params in all_params:
        code, state = encode(params)
        same_bytes(decode(code, state), t.decode(*t.encode(params)))
        decode(moved(code), state)
    assert max(encode._cache_size(), decode._cache_size()) <= 1
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *all_params)
    mapped = jax.vmap(lambda p: t.decode(*t.encode(p)))(stacked)
    for i, params in enumerate(all_params):
        for path, w in kernels(decode(*encode(params))).items():
            np.testing.assert_allclose(kernels(mapped)[path][i], w, rtol=1e-6)


@pytest.mark.parametrize(
    "settings, says",
    [
        (dict(bits=0), "bits is a whole number from 1 to 16, got 0"),
        (dict(bits=2.5), "bits .* got 2.5"),
        (dict(bits=lambda step: 4), "cannot be traced or scheduled"),
        (dict(bits=4, start="liner"), "did you mean 'linear'"),
        (dict(bits=4, scope="leafs"), "did you mean 'leaf'"),
        (dict(bits=4, iterations=-1), "iterations is at least 0"),
    ],
)
def test_bad_arguments(settings, says):
    with pytest.raises(errors.UserError, match=says):
        T.share(**settings)


def test_orders_and_plan():
    shapes = {f"{x}/kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32) for x in "ab"}
    params = tree.unflatten(shapes)
    rows = T.plan(T.chain(T.keep(), T.share(bits=4, scope="global")), params)
    assert {r.taken_by for r in rows} == {"prune(keep), share(bits=4, linear, global)"}
    with pytest.raises(errors.UserError, match="share before tie: .*put tie first"):
        T.plan(T.chain(SHARE, T.tie(paths=["a/kernel", "b/kernel"])), params)
