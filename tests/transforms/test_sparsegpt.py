"""SparseGPT, against the naive OBS in float64, and against what it should beat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms import saliency

PATH = "a/kernel"
KEY = jax.random.key(0)


def correlated(rows, width, seed=0):
    """Inputs `[rows, width]` that vary together, each on a scale of its own."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, width // 2)) @ rng.normal(size=(width // 2, width))
    scale = rng.uniform(0.2, 2, width)
    return (mixed + 0.3 * rng.normal(size=(rows, width))) * scale


def problem(width=12, outputs=5, seed=0):
    x = correlated(64, width, seed)
    w = np.random.default_rng(seed + 1).normal(size=(width, outputs))
    return x, np.float32(w), {PATH: np.float32(x.T @ x)}


def apply(w, **options):
    t = T.sparsegpt(**options)
    params = {"a": {"kernel": jnp.asarray(w), "bias": jnp.ones(2)}}
    code, state = t.encode(params)
    np.testing.assert_array_equal(code["a"]["bias"], [1, 1])
    return np.asarray(code["a"]["kernel"]), np.asarray(state[PATH])


def naive(w, gram, *, sparsity, block, keep=0, group=0, dampening=0.01):
    """OBS row by row; at every row the Hessian of the rest is inverted anew."""
    w, n = np.float64(w), len(w)
    hessian = gram + dampening * np.trace(gram) / n * np.eye(n)
    inverse = [np.linalg.inv(hessian[j:, j:]) for j in range(n)]
    pivots = np.array([i[0, 0] for i in inverse])
    mask = np.ones(w.shape, bool)
    size, gone = group or block, 0
    for first in range(0, n, size):
        rows = slice(first, min(first + size, n))
        # The mask of the whole group is chosen by what its weights are now.
        for j in range(rows.start, rows.stop):
            if j == first:
                score = w[rows] ** 2 / pivots[rows, None]
                if keep:
                    for o in range(w.shape[1]):
                        least = np.argsort(score[:, o])[: size - keep]
                        mask[first + least, o] = False
                else:
                    count = round(sparsity * rows.stop * w.shape[1]) - gone
                    gone += count
                    least = np.argsort(score, axis=None)[:count]
                    mask[rows].reshape(-1)[least] = False
            error = np.where(mask[j], 0, w[j]) / pivots[j]
            w[j:] -= np.outer(inverse[j][:, 0], error)
            w[j] = np.where(mask[j], w[j], 0)
    return w, mask


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 4, 5, 128])
def test_it_is_the_naive_obs(block):
    _, w, grams = problem()
    found, mask = apply(w, sparsity=0.6, grams=grams, block=block)
    gram = np.float64(grams[PATH])
    expected, kept = naive(w, gram, sparsity=0.6, block=min(block, 12))
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
    assert (mask == 0).sum() == 36 and (found[~mask] == 0).all()


@pytest.mark.parametrize("shape, keep, group", [("2:4", 2, 4), ("1:3", 1, 3)])
def test_n_of_m(shape, keep, group):
    _, w, grams = problem()
    found, mask = apply(w, grams=grams, shape=shape, block=12)
    options = dict(sparsity=None, block=12, keep=keep, group=group)
    expected, kept = naive(w, np.float64(grams[PATH]), **options)
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
    assert (mask.reshape(-1, group, 5).sum(1) == keep).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_changes_the_output_least(seed):
    """Less than pruning by magnitude, and by Wanda, at equal sparsity."""
    x, w, grams = problem(seed=seed)
    params = {"a": {"kernel": jnp.asarray(w)}}
    norms = {PATH: jnp.float32((x**2).sum(0))}
    wanda = T.prune(
        sparsity=0.5,
        distribution="output",
        score="given",
        scores=saliency.wanda(params, norms),
    )
    candidates = {
        "sparsegpt": T.sparsegpt(sparsity=0.5, grams=grams),
        "wanda": wanda,
        "magnitude": T.prune(sparsity=0.5),
    }
    change = {}
    for name, t in candidates.items():
        pruned = np.float64(t.decode(*t.encode(params))["a"]["kernel"])
        assert (pruned == 0).sum() == 30
        change[name] = np.linalg.norm(x @ (w - pruned))
    assert change["sparsegpt"] < 0.9 * min(change["wanda"], change["magnitude"])


def test_inputs_that_are_alike_make_up_for_each_other():
    """One of two equal inputs goes: the other takes over its weight."""
    x = np.repeat(correlated(20, 2), 2, axis=1)
    w = np.float32([[1.0], [0.9], [2.0], [2.2]])
    gram = {PATH: np.float32(x.T @ x)}
    found, mask = apply(w, grams=gram, shape="1:2", dampening=1e-4, block=2)
    assert mask.sum() == 2
    np.testing.assert_allclose(x @ found, x @ w, rtol=5e-3, atol=5e-3)


@pytest.mark.slow
def test_no_strength_is_the_identity():
    _, w, grams = problem()
    found, mask = apply(w, sparsity=0.0, grams=grams, block=5)
    assert found.tobytes() == w.tobytes() and mask.all()
    found, mask = apply(w, sparsity=1.0, grams=grams, block=5)
    assert not found.any() and not mask.any()


@pytest.mark.slow
def test_zeros_stay_zeros():
    _, w, grams = problem()
    w[:, ::2] = np.where(np.abs(w[:, ::2]) < 1, 0, w[:, ::2])
    found, _ = apply(w, sparsity=0.3, grams=grams, block=4)
    assert (found[w == 0] == 0).all()
    unseen = {PATH: np.zeros((12, 12), np.float32)}  # no input at all: by magnitude
    found, mask = apply(w, sparsity=0.6, grams=unseen)
    np.testing.assert_array_equal(found, np.where(mask, w, 0))
    assert np.abs(w[mask]).min() >= np.abs(w[~mask]).max()


@pytest.mark.slow
def test_laws():
    """Jitted, frozen, trained: nothing compiles twice, and masks do not move."""
    _, w, grams = problem()
    t = T.sparsegpt(sparsity=0.5, grams=grams)
    params = {"a": {"kernel": jnp.asarray(w)}}
    encode, decode = jax.jit(t.encode), jax.jit(t.decode)
    code, state = encode(params)
    eager, masks = t.encode(params)
    np.testing.assert_array_equal(state[PATH], masks[PATH])
    np.testing.assert_allclose(code["a"]["kernel"], eager["a"]["kernel"], rtol=1e-4)
    for step in range(2):
        code = jax.tree.map(lambda w: w + 1, code)
        state = t.update(code, state, T.Signals(code, jnp.int32(step), KEY))
        decoded = decode(code, state)
    np.testing.assert_array_equal(state[PATH], masks[PATH])
    assert max(encode._cache_size(), decode._cache_size()) <= 1
    frozen = t.freeze(code, state)
    assert isinstance(frozen["a"]["kernel"], representations.Sparse)
    thawed = representations.thaw(frozen)
    assert thawed["a"]["kernel"].tobytes() == decoded["a"]["kernel"].tobytes()
    grads = jax.grad(lambda c: jnp.sum(t.decode(c, state)["a"]["kernel"] ** 2))(code)
    naive = 2 * np.asarray(code["a"]["kernel"]) * np.asarray(masks[PATH])
    np.testing.assert_allclose(grads["a"]["kernel"], naive, rtol=1e-6)


@pytest.mark.slow
def test_traced_sparsity_is_swept():
    _, w, grams = problem()
    params = {"a": {"kernel": jnp.asarray(w)}}

    @jax.jit
    @jax.vmap
    def swept(sparsity):
        t = T.sparsegpt(sparsity=sparsity, grams=grams, block=4)
        return t.decode(*t.encode(params))["a"]["kernel"]

    found = swept(jnp.float32([0.0, 0.25, 0.6]))
    assert [(int((w == 0).sum())) for w in found] == [0, 15, 36]
    one, _ = apply(w, sparsity=0.6, grams=grams, block=4)
    np.testing.assert_allclose(found[2], one, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_convolutions_projections_and_slices():
    """The leaf is seen as what its gram is of; slices are solved each alone."""
    x, w, grams = problem(outputs=6)
    expected, _ = apply(w, sparsity=0.5, grams=grams)
    gram = grams[PATH]
    for shape in ((2, 3, 2, 6), (12, 3, 2), (12, 6)):
        found, mask = apply(w.reshape(shape), sparsity=0.5, grams=grams)
        assert found.shape == mask.shape == shape
        np.testing.assert_array_equal(found.reshape(12, 6), expected)
    stacked = {PATH: np.stack([gram, np.eye(12, dtype=np.float32)])}
    found, _ = apply(np.stack([w, w]), sparsity=0.5, grams=stacked)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-5)
    assert set(np.unique(found[1])) <= {0, *np.unique(w)}


@pytest.mark.slow
@pytest.mark.parametrize("others", ["after", "before"])
def test_in_a_chain(others):
    _, w, grams = problem()
    params = {"a": {"kernel": jnp.asarray(w)}}
    parts = [T.sparsegpt(sparsity=0.5, grams=grams), T.quantize(bits=4)]
    if others == "before":
        parts = [T.prune(sparsity=0.3), T.sparsegpt(sparsity=0.5, grams=grams)]
    t = T.chain(*parts)
    code, state = t.encode(params)
    decoded = np.asarray(t.decode(code, state)["a"]["kernel"])
    assert (decoded == 0).sum() >= 30
    thawed = representations.thaw(t.freeze(code, state))["a"]["kernel"]
    assert thawed.tobytes() == decoded.tobytes()
    assert "sparsegpt(sparsity=0.5, unstructured)" in T.plan(t, params)[0].taken_by


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "sparsity is the fraction removed, from 0 to 1, got None"),
        ({"sparsity": 1.5}, "from 0 to 1, got 1.5"),
        ({"sparsity": 0.5, "shape": "channel"}, "'unstructured' or 'N:M'"),
        ({"sparsity": 0.4, "shape": "2:4"}, "'2:4' removes 0.5; got sparsity 0.4"),
        ({"sparsity": 0.5, "dampening": 0.0}, "dampening is above 0, got 0.0"),
        ({"sparsity": 0.5, "block": 0}, "block is at least 1, got 0"),
        ({"shape": "2:4", "block": 6}, "a multiple of 4, got 6"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(options, message):
    with pytest.raises(errors.UserError) as e:
        T.sparsegpt(grams={}, **options)
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "grams, options, message",
    [
        ({"a/kernal": np.eye(12)}, {}, "did you mean 'a/kernal'"),
        ({PATH: np.ones(12)}, {}, "the gram of a/kernel is square, got shape (12,)"),
        ({PATH: np.eye(7)}, {}, "grams of shape (7,) do not fit a/kernel"),
        ({PATH: np.eye(12)}, {"pattern": "kernal"}, "rule 'kernal' matches nothing"),
        ({PATH: np.eye(12)}, {"shape": "1:5", "block": 5}, "groups of 5 do not divide"),
    ],
)
def test_mistakes_at_encode(grams, options, message):
    sparsity = None if "shape" in options else 0.5
    with pytest.raises(errors.UserError) as e:
        apply(problem()[1], grams=grams, sparsity=sparsity, **options)
    assert message in str(e.value)
