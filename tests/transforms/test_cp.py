"""CP: exact tensors are found again, errors fall, frozen is decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms.cp import fit

SHAPE = (3, 3, 6, 8)
NAMES = ("height", "width", "first", "last")


def naive(height, width, first, last):
    """The definition in float64; `last` is `[rank, out]`."""
    parts = (np.asarray(x, np.float64) for x in (height, width, first, last))
    return np.einsum("hr,wr,ir,ro->hwio", *parts)


def exact(rank, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, rank)) for n in SHAPE]
    return naive(*parts[:3], parts[3].T).astype(np.float32)


def params(dtype=jnp.float32):
    w = np.random.default_rng(0).normal(size=SHAPE)
    return {
        "conv": {"kernel": jnp.asarray(w, dtype)},
        "logits": {"kernel": jnp.ones((4, 3), dtype)},
    }


def same_bytes(a, b):
    a, b = a["conv"]["kernel"], b["conv"]["kernel"]
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


# Rank 4 is more than the window's sides have directions.
@pytest.mark.parametrize(
    "rank", [4, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (1, 2, 6))]
)
def test_what_has_the_rank_is_found_again(rank):
    for seed in range(3):
        w = exact(rank, seed)
        t = T.cp(rank=rank, iterations=1000, pattern="conv")
        tree = {"conv": {"kernel": jnp.asarray(w)}}
        decoded = t.decode(*t.encode(tree))["conv"]["kernel"]
        assert np.linalg.norm(decoded - w) < 2e-3 * np.linalg.norm(w)


def test_error_falls_with_sweeps_and_norms_are_even():
    w = params()["conv"]["kernel"]
    left = []
    for iterations in (1, 3, 10, 30):
        *parts, last = fit(w, rank=4, iterations=iterations)
        left.append(np.linalg.norm(w - naive(*parts, last.T)))
        norms = [np.linalg.norm(x, axis=0) for x in (*parts, last)]
        np.testing.assert_allclose(norms, np.tile(norms[0], (4, 1)), rtol=1e-3)
    assert left == sorted(left, reverse=True)
    # No sum of 4 outer products beats the best rank 4 of any side.
    side = np.moveaxis(np.asarray(w, np.float64), 2, 0).reshape(6, -1)
    assert left[-1] >= np.sqrt((np.linalg.svd(side)[1][4:] ** 2).sum())


def test_nothing_is_nothing():
    tree = {"conv": {"kernel": jnp.zeros(SHAPE)}}
    t = T.cp(rank=4, iterations=3)
    decoded = t.decode(*t.encode(tree))["conv"]["kernel"]
    np.testing.assert_allclose(decoded, 0, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_decoded(dtype):
    t = T.cp(rank=4, iterations=3, pattern="conv")
    code, state = t.encode(params(dtype))
    shapes = {k: x.shape for k, x in code["conv"]["kernel"].items()}
    assert shapes == dict(
        zip(sorted(NAMES), [(6, 4), (3, 4), (4, 8), (3, 4)], strict=True)
    )
    decode = jax.jit(t.decode)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        code = jax.tree.map(
            lambda w, rng=rng: w * jnp.asarray(rng.uniform(0.5, 2, w.shape), w.dtype),
            code,
        )
        frozen = t.freeze(code, state)
        assert isinstance(frozen["conv"]["kernel"], representations.CP)
        decoded = decode(code, state)
        assert decoded["conv"]["kernel"].dtype == dtype
        same_bytes(representations.thaw(frozen), decoded)
        parts = {k: x.astype(jnp.float32) for k, x in code["conv"]["kernel"].items()}
        np.testing.assert_allclose(
            decoded["conv"]["kernel"].astype(jnp.float32),
            naive(**parts),
            atol=1e-5 if dtype == jnp.float32 else 0.1,
        )
    assert decode._cache_size() <= 1


@pytest.mark.slow
def test_jitted_is_not_jitted():
    t = T.cp(rank=4, iterations=3, pattern="conv")
    jitted, _ = jax.jit(t.encode)(params())
    plain, _ = t.encode(params())
    for name in NAMES:
        np.testing.assert_allclose(
            jitted["conv"]["kernel"][name], plain["conv"]["kernel"][name], rtol=1e-4
        )


def test_gradient_is_that_of_the_product():
    t = T.cp(rank=4, iterations=3, pattern="conv")
    code, state = t.encode(params())
    upstream = np.random.default_rng(1).normal(size=SHAPE)
    grads = jax.jit(
        jax.grad(
            lambda c: jnp.sum(
                t.decode(c, state)["conv"]["kernel"] * jnp.float32(upstream)
            )
        )
    )(code)["conv"]["kernel"]
    parts = {k: np.asarray(x, np.float64) for k, x in code["conv"]["kernel"].items()}
    specs = dict(zip(NAMES, ("hr", "wr", "ir", "ro"), strict=True))
    for name in NAMES:
        others = [k for k in NAMES if k != name]
        spec = ",".join(["hwio", *(specs[k] for k in others)]) + f"->{specs[name]}"
        expected = np.einsum(spec, upstream, *(parts[k] for k in others))
        np.testing.assert_allclose(grads[name], expected, atol=1e-4)


@pytest.mark.slow
def test_factors_are_pruned_and_rounded():
    t = T.chain(
        T.cp(rank=4, iterations=3, pattern="conv"),
        T.prune(sparsity=0.5, pattern="conv/kernel/last"),
        T.quantize(bits=4, pattern="conv"),
    )
    code, state = t.encode(params())
    frozen = t.freeze(code, state)
    cp = frozen["conv"]["kernel"]
    assert isinstance(cp.last, representations.Sparse)
    assert isinstance(cp.height, representations.Quantized)
    same_bytes(representations.thaw(frozen), jax.jit(t.decode)(code, state))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0, "iterations": 1}, "rank is at least 1, got 0"),
        ({"rank": 2, "iterations": 0}, "iterations is at least 1, got 0"),
        ({"rank": 2.0, "iterations": 1}, "rank is a whole number, got 2.0"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.cp(**settings)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 4}, "logits/kernel has shape (4, 3); expected a convolution"),
        (
            {"rank": 22, "pattern": "conv"},
            "rank 22 of conv/kernel with shape (3, 3, 6, 8) holds more weights than "
            "the leaf; at most 21 pays",
        ),
    ],
)
def test_leaves_that_do_not_fit(settings, message):
    t = T.cp(iterations=1, **settings)
    for mistake in (t.encode, lambda p: T.plan(T.chain(t), p)):
        with pytest.raises(errors.UserError) as e:
            mistake(params())
        assert message in str(e.value)
