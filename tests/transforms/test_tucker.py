"""Tucker-2: full ranks, exact tensors, HOOI against HOSVD and its bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms.tucker import compose, tucker2

SHAPE = (3, 3, 6, 8)


def kernel(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params(dtype=jnp.float32):
    return {
        "conv": {"kernel": jnp.asarray(kernel(), dtype)},
        "logits": {"kernel": jnp.ones((4, 3), dtype)},
    }


def same_bytes(a, b):
    a, b = a["conv"]["kernel"], b["conv"]["kernel"]
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def naive(first, core, last):
    """The definition, entry by entry, in float64."""
    first, core, last = (np.asarray(x, np.float64) for x in (first, core, last))
    return np.einsum("ip,hwpq,qo->hwio", first, core, last)


def energies(w, axis):
    side = np.moveaxis(np.asarray(w, np.float64), axis, 0).reshape(w.shape[axis], -1)
    return np.linalg.svd(side, compute_uv=False) ** 2


def hosvd(w, rank_in, rank_out):
    """The projection on the leading singular vectors of both sides, by NumPy."""
    w = np.asarray(w, np.float64)
    for axis, rank in ((2, rank_in), (3, rank_out)):
        side = np.moveaxis(np.asarray(kernel(), np.float64), axis, 0)
        u = np.linalg.svd(side.reshape(w.shape[axis], -1))[0][:, :rank]
        w = np.moveaxis(np.tensordot(u @ u.T, np.moveaxis(w, axis, 0), 1), 0, axis)
    return w


@pytest.mark.parametrize(
    "shape", [(1, 1, 5, 3), pytest.param(SHAPE, marks=pytest.mark.slow)]
)
def test_full_ranks_are_the_identity(shape):
    w = kernel(shape=shape)
    parts = tucker2(w, rank_in=shape[2], rank_out=shape[3])
    np.testing.assert_allclose(compose(*parts), w, atol=1e-5)


def test_what_has_the_ranks_is_found_again():
    rng = np.random.default_rng(0)
    shapes = [(6, 2), (3, 3, 2, 3), (3, 8)]
    w = naive(*(rng.normal(size=shape) for shape in shapes))
    tree = {"conv": {"kernel": jnp.asarray(w, jnp.float32)}}
    for t in (
        T.tucker(rank_in=2, rank_out=3),
        T.tucker(energy=0.99999),
    ):
        code, state = t.encode(tree)
        assert {k: x.shape for k, x in code["conv"]["kernel"].items()} == dict(
            zip(("first", "core", "last"), shapes, strict=True)
        )
        np.testing.assert_allclose(
            t.decode(code, state)["conv"]["kernel"], w, atol=1e-4
        )


def test_hooi_is_closer_than_hosvd_which_keeps_its_bound():
    w = kernel()
    found = [
        naive(*tucker2(w, rank_in=2, rank_out=3, sweeps=sweeps)) for sweeps in (0, 1, 5)
    ]
    np.testing.assert_allclose(found[0], hosvd(w, 2, 3), atol=1e-5)
    left = [np.sum((w - x) ** 2) for x in found]
    cut = [energies(w, 2)[2:].sum(), energies(w, 3)[3:].sum()]
    assert left[2] <= left[1] < left[0] <= sum(cut)
    # No projection of both sides does better than that of one.
    assert left[2] >= max(cut)


def test_energy_is_kept_on_either_side():
    w, tree = kernel(), params()
    t = T.tucker(energy=0.5, pattern="conv")
    code, state = t.encode(tree)
    core = code["conv"]["kernel"]["core"].shape
    for axis in (2, 3):
        shares = np.cumsum(energies(w, axis)) / energies(w, axis).sum()
        assert core[axis] == int(np.argmax(shares >= 0.5)) + 1
    error = np.sum((np.asarray(t.decode(code, state)["conv"]["kernel"]) - w) ** 2)
    assert error <= 2 * (1 - 0.5) * np.sum(w**2)
    # What would gain weights stays whole.
    t = T.tucker(energy=1.0, pattern="conv")
    code, state = t.encode(tree)
    assert code["conv"]["kernel"] is tree["conv"]["kernel"]
    same_bytes(representations.thaw(t.freeze(code, state)), t.decode(code, state))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_decoded(dtype):
    t = T.tucker(rank_in=2, rank_out=3, pattern="conv")
    tree = params(dtype)
    code, state = t.encode(tree)
    decode = jax.jit(t.decode)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        code = jax.tree.map(
            lambda w, rng=rng: w * jnp.asarray(rng.uniform(0.5, 2, w.shape), w.dtype),
            code,
        )
        frozen = t.freeze(code, state)
        assert isinstance(frozen["conv"]["kernel"], representations.Tucker)
        decoded = decode(code, state)
        assert decoded["conv"]["kernel"].dtype == dtype
        same_bytes(representations.thaw(frozen), decoded)
        np.testing.assert_allclose(
            decoded["conv"]["kernel"].astype(jnp.float32),
            naive(
                **{k: x.astype(jnp.float32) for k, x in code["conv"]["kernel"].items()}
            ),
            atol=1e-5 if dtype == jnp.float32 else 0.1,
        )
    assert decode._cache_size() <= 1


def test_gradient_is_that_of_the_product():
    t = T.tucker(rank_in=2, rank_out=3, pattern="conv")
    code, state = t.encode(params())
    upstream = kernel(1)
    grads = jax.jit(
        jax.grad(lambda c: jnp.sum(t.decode(c, state)["conv"]["kernel"] * upstream))
    )(code)["conv"]["kernel"]
    first, core, last = (
        np.asarray(code["conv"]["kernel"][k], np.float64)
        for k in ("first", "core", "last")
    )
    for name, spec, others in (
        ("first", "hwio,hwpq,qo->ip", (core, last)),
        ("core", "hwio,ip,qo->hwpq", (first, last)),
        ("last", "hwio,ip,hwpq->qo", (first, core)),
    ):
        expected = np.einsum(spec, np.float64(upstream), *others)
        np.testing.assert_allclose(grads[name], expected, atol=1e-4)


@pytest.mark.slow
def test_factors_are_pruned_and_rounded():
    t = T.chain(
        T.tucker(rank_in=2, rank_out=3, pattern="conv"),
        T.prune(sparsity=0.5, pattern="conv/kernel/core"),
        T.quantize(bits=4, pattern="conv"),
    )
    code, state = t.encode(params())
    frozen = t.freeze(code, state)
    tucker = frozen["conv"]["kernel"]
    assert isinstance(tucker.core, representations.Sparse)
    assert isinstance(tucker.first, representations.Quantized)
    same_bytes(representations.thaw(frozen), jax.jit(t.decode)(code, state))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give rank_in and rank_out, or an energy"),
        ({"rank_in": 2}, "got rank_in=2, rank_out=0 and energy=0.0"),
        ({"rank_in": 2, "rank_out": 2, "energy": 0.5}, "or an energy, got rank_in=2"),
        ({"rank_in": 2.5, "rank_out": 2}, "rank_in is a whole number, got 2.5"),
        ({"energy": 2.0}, "energy is a share above 0 and at most 1, got 2.0"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.tucker(**settings)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"energy": 0.5},
            "logits/kernel has shape (4, 3); expected a convolution [height, width, ",
        ),
        (
            {"rank_in": 7, "rank_out": 2, "pattern": "conv"},
            "ranks 7 and 2 of conv/kernel with shape (3, 3, 6, 8): at most its "
            "channels, 6 and 8",
        ),
        (
            {"rank_in": 6, "rank_out": 8, "pattern": "conv"},
            "conv/kernel with shape (3, 3, 6, 8) hold 532 weights, more than its 432",
        ),
    ],
)
def test_leaves_that_do_not_fit(settings, message):
    t = T.tucker(**settings)
    for mistake in (t.encode, lambda p: T.plan(T.chain(t), p)):
        with pytest.raises(errors.UserError) as e:
            mistake(params())
        assert message in str(e.value)
