"""Low rank: SVD against NumPy's, ranks, weighting by inputs, low rank plus sparse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, tree
from lib import transforms as T
from lib.deploy import artifact
from lib.transforms.factorize import add, multiply, split, svd

KEY = jax.random.key(0)
SHAPES = {"a": (12, 8), "b": (3, 3, 2, 5)}  # full ranks 8 and 5; 4 and 3 pay
PATHS = [f"{name}/kernel" for name in SHAPES]


def weights(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": jnp.asarray(rng.normal(size=shape), dtype),
            "bias": jnp.ones((), dtype),
        }
        for name, shape in SHAPES.items()
    }


def matrix(w):
    return np.asarray(w, np.float64).reshape(-1, w.shape[-1])


def truncated(w, rank):
    u, s, v = np.linalg.svd(matrix(w), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).dtype == np.asarray(b[path]).dtype, path
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def trained(code, seed=3):
    """Moves a code as training would."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda w: w * jnp.asarray(rng.uniform(0.5, 2, jnp.shape(w)), jnp.float32), code
    )


def check_frozen(t, code, state):
    """Frozen is decoded, in memory and from a file; returns the frozen tree."""
    decode = jax.jit(t.decode)
    for _ in range(2):
        code = trained(code)
        decoded = decode(code, state)
        frozen = t.freeze(code, state)
        same_bytes(representations.thaw(frozen), decoded)
    assert decode._cache_size() <= 1
    return frozen


def ranks_of(code):
    """Returns {layer: rank}, None where the leaf is whole."""
    kernels = {name: layer["kernel"] for name, layer in code.items()}
    return {
        name: k["v"].shape[0] if isinstance(k, dict) else None
        for name, k in kernels.items()
    }


def test_is_the_truncated_svd_with_even_factors():
    params = weights()
    t = T.factorize(rank=3)
    code, state = jax.jit(t.encode)(params)
    decoded = t.decode(code, state)
    for name in SHAPES:
        w, part = params[name]["kernel"], code[name]["kernel"]
        assert part["u"].shape == (*w.shape[:-1], 3)
        assert part["v"].shape == (3, w.shape[-1])
        np.testing.assert_allclose(
            matrix(decoded[name]["kernel"]), truncated(w, 3), atol=1e-5
        )
        u, v = matrix(part["u"]), np.asarray(part["v"])
        sizes = np.linalg.svd(matrix(w), compute_uv=False)[:3]
        np.testing.assert_allclose(u.T @ u, np.diag(sizes), atol=1e-4)
        np.testing.assert_allclose(v @ v.T, np.diag(sizes), atol=1e-4)
    assert decoded["a"]["bias"] == 1
    taken = {row.path: row.taken_by for row in T.plan(t, params)}
    assert taken["a/kernel"] == taken["b/kernel"] == "factorize(rank=3)"
    assert taken["a/bias"] == ""


def test_full_rank_is_the_identity():
    for w in (weights()["a"]["kernel"], jnp.zeros((6, 4)), jnp.ones((1, 3))):
        u, v = split(*svd(w), min(w.shape))
        np.testing.assert_allclose(u @ v, w, atol=1e-5)


def test_what_has_the_rank_is_found_again():
    rng = np.random.default_rng(0)
    thin = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 8))
    params = {"kernel": jnp.asarray(thin, jnp.float32)}
    for t in (T.factorize(rank=2), T.factorize(energy=0.99999)):
        code, state = t.encode(params)
        assert code["kernel"]["u"].shape == (12, 2)
        np.testing.assert_allclose(t.decode(code, state)["kernel"], thin, atol=1e-5)


def test_frozen_is_decoded(tmp_path):
    t = T.factorize(rank=3)
    code, state = t.encode(weights())
    frozen = check_frozen(t, code, state)
    assert isinstance(frozen["a"]["kernel"], representations.LowRank)
    kernels = {name: layer["kernel"] for name, layer in frozen.items()}
    artifact.save(tmp_path / "x", kernels)
    same_bytes(
        representations.thaw(artifact.load(tmp_path / "x")),
        representations.thaw(kernels),
    )


def test_bfloat16_is_factorized_in_float32():
    params = weights(dtype=jnp.bfloat16)
    t = T.factorize(rank=3)
    code, state = t.encode(params)
    assert code["a"]["kernel"]["u"].dtype == jnp.bfloat16
    decoded = jax.jit(t.decode)(code, state)
    same_bytes(representations.thaw(t.freeze(code, state)), decoded)
    w = params["a"]["kernel"].astype(jnp.float32)
    np.testing.assert_allclose(
        matrix(decoded["a"]["kernel"]), truncated(w, 3), atol=0.06
    )


def test_gradient_is_that_of_the_product():
    params, target = weights(), weights(1)
    t = T.factorize(rank=2)
    code, state = t.encode(params)

    def loss(code):
        decoded = t.decode(code, state)
        return sum(jnp.sum(decoded[n]["kernel"] * target[n]["kernel"]) for n in SHAPES)

    grads = jax.jit(jax.grad(loss))(code)
    for name in SHAPES:
        part, upstream = code[name]["kernel"], matrix(target[name]["kernel"])
        found = grads[name]["kernel"]
        np.testing.assert_allclose(
            matrix(found["u"]), upstream @ matrix(part["v"]).T, atol=1e-5
        )
        np.testing.assert_allclose(
            found["v"], matrix(part["u"]).T @ upstream, atol=1e-5
        )


def test_energy_keeps_no_more_than_it_must():
    params = weights()
    for energy in (0.3, 0.6, 0.8):
        code, _ = T.factorize(energy=energy).encode(params)
        for name, rank in ranks_of(code).items():
            squares = np.linalg.svd(matrix(params[name]["kernel"]))[1] ** 2
            shares = np.cumsum(squares) / squares.sum()
            assert shares[rank - 1] >= energy
            assert rank == 1 or shares[rank - 2] < energy


@pytest.mark.slow
def test_a_leaf_that_would_gain_weights_stays_whole():
    params = {**weights(), "c": {"kernel": jnp.ones((1, 8))}}
    t = T.factorize(energy=1.0)
    code, state = t.encode(params)
    assert ranks_of(code) == {"a": None, "b": None, "c": None}
    same_bytes(t.decode(code, state), params)
    same_bytes(representations.thaw(t.freeze(code, state)), params)
    # Before there are values, a plan cannot know.
    chained = T.chain(t, T.prune(sparsity=0.5))
    assert T.plan(chained, params)[0].taken_by.startswith("factorize(energy=1.0), pr")
    chained.encode(params)


def test_budget_goes_where_the_energy_is():
    params = weights()
    params["a"]["kernel"] = params["a"]["kernel"] * 100
    t = T.factorize(budget=0.6)
    code, state = t.encode(params)
    # Of 186 weights 111: rank 1 is 20 and 23, and three ranks more of a are 60.
    assert ranks_of(code) == {"a": 4, "b": 1}
    held = sum(w.size for w in jax.tree.leaves(code)) - 2  # biases
    assert held == 103
    check_frozen(t, code, state)
    whole, _ = T.factorize(budget=1.0).encode(params)
    assert ranks_of(whole) == {"a": None, "b": None}


def inputs(seed=5, rows=40):
    """Calibration inputs whose directions matter very differently, a few not at all."""
    rng = np.random.default_rng(seed)
    found = {}
    for path, shape in zip(PATHS, SHAPES.values(), strict=True):
        size = int(np.prod(shape[:-1]))
        x = rng.normal(size=(rows, size)) * 3.0 ** -np.arange(size)[None, :]
        x[:, 1] = x[:, 0]  # inputs that vary together
        x[:, 2] = 0  # one that never does
        found[path] = x
    return found


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_weighting_by_inputs_is_the_best_for_them(rank):
    params, x = weights(), inputs()
    grams = {path: data.T @ data for path, data in x.items()}
    t = T.factorize(rank=rank, grams=grams)
    decoded = t.decode(*jax.jit(t.encode)(params))
    plain = T.factorize(rank=rank)
    plain = plain.decode(*plain.encode(params))
    for path, data in x.items():
        w = matrix(tree.get(params, path))

        def error(found, path=path, data=data, w=w):
            return np.linalg.norm(data @ (w - matrix(tree.get(found, path))))

        # No matrix of that rank comes closer to x w than its own truncated SVD.
        best = np.sqrt((np.linalg.svd(data @ w)[1][rank:] ** 2).sum())
        # Dampening and float32, as a share of what there is to keep.
        slack = 2e-3 * np.linalg.norm(data @ w)
        assert best - slack <= error(decoded) <= best + slack
        assert error(decoded) <= error(plain) + 1e-6


def test_grams_of_white_inputs_change_nothing():
    params = weights()
    for gram in (np.eye, lambda n: np.zeros((n, n))):
        grams = {"a/kernel": gram(12), "b/kernel": gram(18)}
        t = T.factorize(rank=2, grams=grams)
        decoded = t.decode(*t.encode(params))
        for name in SHAPES:
            np.testing.assert_allclose(
                matrix(decoded[name]["kernel"]),
                truncated(params[name]["kernel"], 2),
                atol=1e-4,
            )


def test_residual_and_a_pruned_rest_are_low_rank_plus_sparse():
    params = weights()
    split_only = T.factorize(rank=2, residual=True)
    decoded = split_only.decode(*split_only.encode(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), decoded, params
    )
    t = T.chain(split_only, T.prune(sparsity=0.75, pattern="rest$"))
    code, state = t.encode(params)
    decoded = t.decode(code, state)
    for name in SHAPES:
        w = params[name]["kernel"]
        low = truncated(w, 2)
        rest = matrix(w) - low
        kept = np.abs(rest) >= np.sort(np.abs(rest).ravel())[-round(rest.size / 4)]
        np.testing.assert_allclose(
            matrix(decoded[name]["kernel"]), low + rest * kept, atol=1e-5
        )
    frozen = check_frozen(t, code, state)["b"]["kernel"]
    assert isinstance(frozen, representations.Sum)
    assert isinstance(frozen.base, representations.LowRank)
    assert isinstance(frozen.extra, representations.Sparse)


def test_rank_one_and_a_rounded_rest_round_twice():
    # The processor would fuse the product of rank 1, or the grid's scale, with the sum.
    params = weights()
    t = T.factorize(rank=1, residual=True)
    check_frozen(t, *t.encode(params))
    t = T.chain(t, T.quantize(bits=4, pattern="rest$"))
    check_frozen(t, *t.encode(params))


def test_a_sum_keeps_nan_and_gradients():
    x = jnp.float32([1.0, jnp.nan])
    np.testing.assert_array_equal(add(x, jnp.ones(2)), [2, jnp.nan])
    grads = jax.grad(lambda x, y: add(x, y)[0] * 3, (0, 1))(x, x)
    np.testing.assert_array_equal(grads, [[3, 0], [3, 0]])


def test_product_is_mapped():
    u, v = jnp.ones((2, 5, 3)), jnp.ones((2, 3, 4))
    np.testing.assert_array_equal(jax.vmap(multiply)(u, v), jnp.full((2, 5, 4), 3.0))


@pytest.mark.slow
def test_factors_are_pruned_and_rounded():
    t = T.chain(T.factorize(rank=3), T.prune(sparsity=0.5), T.quantize(bits=4))
    frozen = check_frozen(t, *jax.jit(t.encode)(weights()))
    for name in SHAPES:
        low = frozen[name]["kernel"]
        for part in (low.u, low.v):
            assert isinstance(part, representations.Sparse)
            assert isinstance(part.values, representations.Quantized)
            share = 1 - np.asarray(part.mask).mean()
            assert abs(share - 0.5) <= 0.5 / part.mask.size


def test_a_masked_product():
    t = T.chain(T.prune(sparsity=0.5), T.factorize(rank=3))
    frozen = check_frozen(t, *t.encode(weights()))["a"]["kernel"]
    assert isinstance(frozen, representations.Sparse)
    assert isinstance(frozen.values, representations.LowRank)


def test_leaves_of_nothing():
    params = {"a": {"kernel": jnp.zeros((0, 5))}, "b": {"kernel": jnp.zeros((6, 4))}}
    for settings in ({"rank": 1}, {"energy": 0.9}, {"budget": 0.5}):
        t = T.factorize(**settings)
        code, state = t.encode(params)
        assert ranks_of(code) == {"a": None, "b": 1}
        same_bytes(t.decode(code, state), params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give one of rank, energy and budget, got none"),
        ({"rank": 2, "energy": 0.5}, "got rank=2, energy=0.5"),
        ({"rank": 2.5}, "rank is a whole number, got 2.5"),
        ({"rank": -1}, "rank is at least 0, got -1"),
        ({"energy": 1.5}, "energy is a share above 0 and at most 1, got 1.5"),
        ({"budget": -0.1}, "budget is a share above 0 and at most 1, got -0.1"),
        ({"budget": 0.5, "residual": True}, "a budget counts the factors only"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.factorize(**settings)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (
            T.factorize(rank=4),
            "rank 4 of b/kernel with shape (3, 3, 2, 5) holds more weights; at most 3",
        ),
        (
            T.factorize(rank=6, residual=True),
            "rank 6 of b/kernel with shape (3, 3, 2, 5) is above its smaller side; "
            "at most 5",
        ),
        (T.factorize(budget=0.1), "rank 1 of every leaf takes 43, a share of 0.231"),
        (T.factorize(rank=1, pattern="bias"), "a/bias has shape (); expected a matrix"),
        (T.factorize(rank=1, grams={"a/kernel": np.eye(12)}), "'b/kernel'"),
        (
            T.factorize(rank=1, grams={"a/kernel": np.eye(8), "b/kernel": np.eye(18)}),
            "the gram of a/kernel has shape (8, 8), expected (12, 12)",
        ),
        (
            T.factorize(rank=1, pattern="a/kernel", grams={"a/kernel": -np.eye(12)}),
            "the gram of a/kernel is not x.T @ x",
        ),
        (
            T.chain(T.quantize(bits=4), T.factorize(rank=2)),
            "quantize before factorize: it would round the product",
        ),
    ],
)
def test_leaves_that_do_not_fit(t, message):
    params = weights()
    with pytest.raises(errors.UserError) as e:
        t.encode(params)
    assert message in str(e.value)
