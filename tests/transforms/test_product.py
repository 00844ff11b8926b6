"""Product quantization: which weights make a vector, gradients, and frozen tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, tree
from lib import transforms as T
from lib.deploy import artifact
from lib.transforms import kmeans

# 24 inputs or more, which vectors of 3 divide: across positions of the convolution.
SHAPES = {"a": (24, 5), "b": (2, 3, 4, 5)}
PRODUCT = T.product(dim=3, bits=3, iterations=30)


def weights(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), dtype)}
        for name, shape in SHAPES.items()
    }


def vectors(w, dim=3):
    """Returns [contraction / dim * out, dim], one at a time."""
    flat = np.asarray(w, np.float32).reshape(-1, w.shape[-1])
    rows = range(0, len(flat), dim)
    return np.stack([flat[i : i + dim, o] for i in rows for o in range(w.shape[-1])])


def check_frozen(t, code, state, tmp_path=None):
    frozen, decoded = t.freeze(code, state), jax.jit(t.decode)(code, state)
    if tmp_path:
        artifact.save(tmp_path / "file", frozen)
        frozen = artifact.load(tmp_path / "file")
    thawed = representations.thaw(frozen)
    for path, w in tree.flatten(decoded).items():
        assert np.asarray(w).tobytes() == tree.get(thawed, path).tobytes(), path
        assert representations.shape_of(tree.get(frozen, path)) == w.shape
    return frozen


def test_literal():
    w = jnp.float32([[1, 5], [2, 6], [5, 1], [6, 2.0]])
    code, state = T.product(dim=2, bits=1, iterations=5).encode({"kernel": w})
    assert {tuple(map(int, c)) for c in code["kernel"]} == {(1, 2), (5, 6)}
    i = int(state["kernel"]["indices"][0, 0])
    np.testing.assert_array_equal(state["kernel"]["indices"], [[i, 1 - i], [1 - i, i]])
    assert state["kernel"]["indices"].dtype == jnp.uint8


def test_every_vector_is_its_nearest_entry():
    params = weights()
    code, state = PRODUCT.encode(params)
    decoded = PRODUCT.decode(code, state)
    for name, shape in SHAPES.items():
        assert decoded[name]["kernel"].shape == shape
        book, points = np.asarray(code[name]["kernel"]), vectors(params[name]["kernel"])
        assert book.shape == (8, 3)
        nearest = ((points[:, None] - book[None]) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(vectors(decoded[name]["kernel"]), book[nearest])
    # k-means has come to rest, so that each entry is the mean of its vectors.
    for i in range(8):
        np.testing.assert_allclose(book[i], points[nearest == i].mean(0), 1e-5, 1e-6)
    # What was decoded is found again: it has no more vectors than entries.
    again = PRODUCT.decode(*PRODUCT.encode(decoded))
    for a, b in zip(*map(jax.tree.leaves, (again, decoded)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_gradients_are_summed_by_entry():
    params = weights()
    code, state = PRODUCT.encode(params)
    upstream = weights(1)
    (grads,) = jax.vjp(lambda c: PRODUCT.decode(c, state), code)[1](upstream)
    for name in SHAPES:
        indices = np.ravel(state[f"{name}/kernel"]["indices"])
        up = vectors(upstream[name]["kernel"])
        expected = [up[indices == i].sum(0) for i in range(8)]
        np.testing.assert_allclose(grads[name]["kernel"], expected, 1e-5, 1e-6)


def test_enough_bits_are_the_identity():
    params = weights()
    t = T.product(dim=3, bits=9, iterations=3)
    code, state = t.encode(params)
    assert code["a"]["kernel"].shape == (40, 3)  # no more entries than vectors
    assert state["a/kernel"]["indices"].dtype == jnp.uint16
    jax.tree.map(np.testing.assert_array_equal, t.decode(code, state), params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_decoded(dtype, tmp_path):
    params = weights(dtype=dtype)
    code, state = jax.jit(PRODUCT.encode)(params)
    assert jax.tree.leaves(code)[0].dtype == dtype
    frozen = check_frozen(PRODUCT, code, state, tmp_path)
    assert isinstance(frozen["b"]["kernel"], representations.Codebook)


def test_entries_in_few_bits_or_pruned(tmp_path):
    for later in (T.quantize(bits=4), T.prune(sparsity=0.5)):
        t = T.chain(PRODUCT, later)
        check_frozen(t, *t.encode(weights()), tmp_path)


@pytest.mark.slow
def test_pruned_stay_pruned(tmp_path):
    params = weights()
    t = T.chain(T.prune(sparsity=0.8), PRODUCT)
    code, state = t.encode(params)
    masks = T.chain(T.prune(sparsity=0.8)).encode(params)[1][0]
    code = jax.tree.map(lambda c: c + 1, code)
    decoded = t.decode(code, state)
    for path, mask in masks.items():
        assert (np.asarray(tree.get(decoded, path))[~np.asarray(mask)] == 0).all()
    check_frozen(t, code, state, tmp_path)


@pytest.mark.slow
def test_compiles_once_and_maps():
    t = T.product(dim=3, bits=3, iterations=30)  # whose cache is its own
    decode = jax.jit(t.decode)
    both = weights(), weights(1)
    for params in both:
        decoded = decode(*PRODUCT.encode(params))
    assert decode._cache_size() <= 1
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
    mapped = jax.vmap(lambda p: PRODUCT.decode(*PRODUCT.encode(p)))(stacked)
    for a, b in zip(*map(jax.tree.leaves, (mapped, decoded)), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6)


def test_seed_draws_the_start():
    x = jnp.asarray(vectors(weights()["a"]["kernel"]))
    starts = [
        np.asarray(kmeans.vectors(x, jax.random.key(s), clusters=8, iterations=0))
        for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


@pytest.mark.parametrize(
    "settings, says",
    [
        (dict(dim=0, bits=4), "dim is at least 1, got 0"),
        (dict(dim=2, bits=17), "bits is a whole number from 1 to 16, got 17"),
        (dict(dim=2, bits=4, iterations=-1), "iterations is at least 0"),
    ],
)
def test_bad_arguments(settings, says):
    with pytest.raises(errors.UserError, match=says):
        T.product(**settings)


def test_leaves_that_are_not_divided():
    with pytest.raises(errors.UserError, match=r"vectors of 5 .* 24 inputs of a/kern"):
        T.product(dim=5, bits=4).encode(weights())
    with pytest.raises(errors.UserError, match=r"the 1 inputs of a/kernel .* \(16,\)"):
        T.plan(T.chain(T.share(bits=4), PRODUCT), weights())
