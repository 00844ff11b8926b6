"""LoRA: nothing changes at first, the scale of the paper, a fixed and rounded base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, tree
from lib import transforms as T
from lib.deploy import artifact
from lib.transforms.lora import scaled

SHAPES = {"a": (12, 8), "b": (3, 3, 2, 5)}


def weights(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), dtype)}
        for name, shape in SHAPES.items()
    }


def matrix(w):
    return np.asarray(w, np.float64).reshape(-1, w.shape[-1])


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).dtype == np.asarray(b[path]).dtype, path
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def trained(code, seed=3):
    """Moves a code as training would, off 0 too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda w: w + jnp.asarray(rng.normal(size=w.shape), w.dtype), code
    )


def check_frozen(t, params):
    code, state = t.encode(params)
    code, decode = trained(code), jax.jit(t.decode)
    frozen = t.freeze(code, state)
    same_bytes(representations.thaw(frozen), decode(code, state))
    decode(trained(code), state)
    assert decode._cache_size() <= 1
    return frozen


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_changes_at_first(dtype):
    params = weights(dtype=dtype)
    t = T.lora(rank=2, alpha=16.0)
    code, state = jax.jit(t.encode)(params)
    for name, shape in SHAPES.items():
        part = code[name]["kernel"]
        same_bytes(part["rest"], params[name]["kernel"])
        assert part["u"].shape == (*shape[:-1], 2)
        assert part["u"].dtype == part["v"].dtype == dtype
        np.testing.assert_array_equal(part["v"], np.zeros((2, shape[-1])))
        bound = 1 / np.sqrt(np.prod(shape[:-1]))
        assert 0.3 * bound < np.abs(np.float32(part["u"])).mean() < 0.7 * bound
        assert np.abs(np.float32(part["u"])).max() <= bound * 1.01
    same_bytes(jax.jit(t.decode)(code, state), params)


def test_seeds():
    def first(seed):
        return T.lora(rank=2, alpha=2.0, seed=seed).encode(weights())[0]

    same_bytes(first(1), first(1))
    assert not np.array_equal(
        first(1)["a"]["kernel"]["u"], first(2)["a"]["kernel"]["u"]
    )


def test_weight_and_gradient_are_the_papers():
    params, upstream = weights(), weights(1)
    t = T.lora(rank=2, alpha=3.0)
    code, state = t.encode(params)
    code = trained(code)
    decoded = t.decode(code, state)

    def loss(code):
        found = t.decode(code, state)
        return sum(jnp.sum(found[n]["kernel"] * upstream[n]["kernel"]) for n in SHAPES)

    grads = jax.jit(jax.grad(loss))(code)
    for name in SHAPES:
        part, g = code[name]["kernel"], matrix(upstream[name]["kernel"])
        rest, u, v = (matrix(part[k]) for k in ("rest", "u", "v"))
        np.testing.assert_allclose(
            matrix(decoded[name]["kernel"]), rest + 3.0 / 2 * u @ v, atol=1e-4
        )
        found = grads[name]["kernel"]
        np.testing.assert_allclose(matrix(found["rest"]), g)
        np.testing.assert_allclose(matrix(found["u"]), 1.5 * g @ v.T, atol=1e-4)
        np.testing.assert_allclose(found["v"], 1.5 * u.T @ g, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("rank", "alpha"), [(1, 0.3), (2, 16.0)])
def test_frozen_is_decoded(rank, alpha, dtype):
    frozen = check_frozen(T.lora(rank=rank, alpha=alpha), weights(dtype=dtype))
    found = frozen["a"]["kernel"]
    assert isinstance(found, representations.Sum)
    assert isinstance(found.extra, representations.LowRank)


def test_the_base_is_fixed():
    t = T.chain(T.lora(rank=2, alpha=4.0), T.fixed(pattern="rest$"))
    params = weights()
    code, state = t.encode(params)
    names = {path.rpartition("/")[2] for path in tree.flatten(code)}
    assert names == {"u", "v"}
    same_bytes(t.decode(code, state), params)
    frozen = check_frozen(t, params)
    same_bytes(frozen["a"]["kernel"].base.values, params["a"]["kernel"])


@pytest.mark.slow
def test_the_base_is_rounded_and_fixed(tmp_path):
    params = weights()
    t = T.chain(
        T.lora(rank=2, alpha=4.0),
        T.quantize(bits=4, pattern="rest$"),
        T.fixed(pattern="rest$"),
    )
    frozen = check_frozen(t, params)
    assert isinstance(frozen["b"]["kernel"].base, representations.Quantized)
    alone = T.quantize(bits=4)
    same_bytes(
        t.decode(*t.encode(params)), jax.jit(alone.decode)(*alone.encode(params))
    )
    artifact.save(tmp_path / "x", frozen)
    same_bytes(
        representations.thaw(artifact.load(tmp_path / "x")),
        representations.thaw(frozen),
    )


@pytest.mark.slow
def test_a_pruned_and_rounded_change():
    t = T.chain(
        T.lora(rank=2, alpha=4.0),
        T.prune(sparsity=0.5, pattern="kernel/[uv]$"),
        T.quantize(bits=4, pattern="kernel/[uv]$"),
    )
    extra = check_frozen(t, weights())["a"]["kernel"].extra
    for part in (extra.u, extra.v):  # a scale of 2 goes into the grid's steps
        assert isinstance(part, representations.Sparse)
        assert isinstance(part.values, representations.Quantized)


@pytest.mark.parametrize("scale", [2.0, 0.3])
def test_scaled_is_exact(scale):
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (6, 4)).astype(np.int8)
    steps = rng.uniform(0.1, 1, (1, 4)).astype(np.float32)
    grid = representations.Quantized(codes, steps, None, 4)
    values = rng.normal(size=(6, 4)).astype(np.float32)
    centroids = rng.normal(size=15).astype(np.float32)
    shared = representations.Codebook((codes + 7).astype(np.uint8), centroids)
    stored = representations.Quantized(codes[:, 0], steps[0, :1], None, 4)
    low = representations.LowRank(
        representations.of(values), representations.of(values.T.copy())
    )
    for rep in (
        representations.of(values),
        grid,
        shared,
        representations.Codebook(np.uint8(codes % 6), stored),
        representations.sparse(codes > 0, grid),
        representations.sparse(codes > 0, representations.of(values)),
        low,
    ):
        found = representations.materialize(scaled(rep, scale))
        expected = representations.materialize(rep) * np.float32(scale)
        assert found.tobytes() == expected.tobytes()
    assert isinstance(scaled(shared, scale), representations.Codebook)
    kind = representations.Quantized if scale == 2 else representations.Dense
    assert isinstance(scaled(grid, scale), kind)
    assert scaled(low, 1.0) is low


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0, "alpha": 1.0}, "rank is at least 1, got 0"),
        ({"rank": 1.5, "alpha": 1.0}, "rank is a whole number, got 1.5"),
        ({"rank": 1, "alpha": 0.0}, "alpha is positive, got 0.0"),
        ({"rank": 1, "alpha": float("nan")}, "alpha is positive, got nan"),
        ({"rank": 1, "alpha": 1.0, "seed": -1}, "seed is at least 0, got -1"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.lora(**settings)
    assert message in str(e.value)


def test_a_rank_beyond_the_leaf():
    t = T.lora(rank=6, alpha=1.0)
    with pytest.raises(errors.UserError, match="of b/kernel with shape .* at most 5"):
        t.encode(weights())
