"""Representations against loops over single weights."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from lib import formats
from lib import representations as reps


def rng():
    return np.random.default_rng(0)


def every(shape):
    return itertools.product(*map(range, shape))


def naive_quantized(rep: reps.Quantized) -> np.ndarray:
    codes = np.asarray(rep.codes)
    zeros = np.zeros_like(rep.scale) if rep.zero_point is None else rep.zero_point
    out = np.empty(codes.shape, np.float32)
    for where in every(codes.shape):
        at = where
        if rep.group:
            row = 0
            for index, length in zip(where[:-1], codes.shape[:-1], strict=True):
                row = row * length + index
            at = (row // rep.group, row % rep.group, where[-1])
        at = tuple(min(i, n - 1) for i, n in zip(at, rep.scale.shape, strict=True))
        whole = int(codes[where]) - int(zeros[at])
        out[where] = np.float32(whole) * np.float32(rep.scale[at])
    return out


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("shape", "scale_shape", "group"),
    [
        ((6, 4), (1, 1), 0),
        ((6, 4), (1, 4), 0),
        ((6, 4), (6, 1), 0),
        ((3, 2, 4, 5), (1, 1, 1, 5), 0),
        ((6, 4), (2, 1, 4), 3),
        ((3, 2, 4, 5), (4, 1, 5), 6),
    ],
)
def test_quantized_is_the_loop(shape, scale_shape, group, affine):
    low, high = (0, 16) if affine else (-7, 8)
    codes = rng().integers(low, high, shape).astype(np.uint8 if affine else np.int8)
    scale = rng().uniform(0.1, 1, scale_shape).astype(np.float32)
    zero = rng().integers(0, 16, scale_shape).astype(np.uint8) if affine else None
    rep = reps.Quantized(codes, scale, zero, 4, group)
    weight = reps.materialize(rep)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, naive_quantized(rep))


def test_levels_are_the_loop():
    codes = rng().integers(0, 16, (3, 2, 4, 5)).astype(np.uint8)
    scale = rng().uniform(0.1, 1, (4, 1, 5)).astype(np.float32)
    rep = reps.Levels(codes, scale, "nf4", 6)
    weight, flat = reps.materialize(rep), codes.reshape(24, 5)
    for row, column in every(flat.shape):
        level = formats.FORMATS["nf4"][flat[row, column]]
        found = weight.reshape(24, 5)[row, column]
        assert found == np.float32(level) * scale[row // 6, 0, column]
    assert weight.dtype == np.float32
    assert reps.shape_of(rep) == (3, 2, 4, 5)
    assert reps.params(rep) == 120 and reps.nonzero(rep) == np.sum(codes != 7)

    mask = rng().random(codes.shape) < 0.5
    binary = reps.Levels(codes % 2, np.ones((1,) * 4, np.float32), "binary")
    kept = reps.sparse(mask, binary)
    assert not kept.values.codes[~mask].any()
    expected = np.where(mask, 2.0 * (codes % 2) - 1, 0)
    np.testing.assert_array_equal(reps.materialize(kept), expected)
    assert reps.nonzero(kept) == mask.sum()


def test_quantized_literal():
    rep = reps.Quantized(
        np.array([[0, 3], [15, 8]], np.uint8),
        np.array([[0.5, 2.0]], np.float32),
        np.array([[8, 3]], np.uint8),
        4,
    )
    np.testing.assert_array_equal(reps.materialize(rep), [[-4, 0], [3.5, 10]])


def test_codebook_is_the_loop():
    indices = rng().integers(0, 5, (3, 4)).astype(np.uint8)
    centroids = rng().normal(size=5).astype(np.float32)
    weight = reps.materialize(reps.Codebook(indices, centroids))
    for where in every(indices.shape):
        assert weight[where] == centroids[indices[where]]


def test_sparse_is_the_loop():
    mask = rng().random((3, 4)) < 0.5
    values = rng().normal(size=(3, 4)).astype(np.float32)
    weight = np.asarray(reps.materialize(reps.Sparse(mask, reps.Dense(values))))
    for where in every(mask.shape):
        assert weight[where] == (values[where] if mask[where] else 0)
    assert not np.signbit(weight[~mask]).any()


def test_low_rank_is_the_loop():
    u = rng().normal(size=(5, 2)).astype(np.float32)
    v = rng().normal(size=(2, 3)).astype(np.float32)
    mask = rng().random(v.shape) < 0.5
    rep = reps.LowRank(reps.Dense(u), reps.Sparse(mask, reps.Dense(v)))
    weight = reps.materialize(rep)
    for i, j in every((5, 3)):
        expected = sum(float(u[i, r]) * float(v[r, j]) for r in range(2) if mask[r, j])
        assert weight[i, j] == pytest.approx(expected, abs=1e-6)
    assert reps.shape_of(rep) == (5, 3)
    assert reps.params(rep) == 5 * 2 + 2 * 3
    assert reps.nonzero(rep) == 10 + mask.sum()


def test_sparse_clears_what_the_mask_removes():
    mask = np.array([[True, False], [False, True]])
    dense = reps.sparse(mask, reps.Dense(np.full((2, 2), -3.0, np.float32)))
    np.testing.assert_array_equal(dense.values.values, [[-3, 0], [0, -3]])
    assert not np.signbit(dense.values.values[0, 1])

    codes = np.full((2, 2), 5, np.uint8)
    scale, zero = np.ones((1, 1), np.float32), np.full((1, 1), 9, np.uint8)
    quantized = reps.sparse(mask, reps.Quantized(codes, scale, zero, 4)).values
    np.testing.assert_array_equal(quantized.codes, [[5, 0], [0, 5]])
    assert quantized.codes.dtype == np.uint8
    assert (quantized.zero_point.item(), quantized.bits) == (9, 4)

    indices = np.ones((2, 2), np.uint16)
    book = reps.sparse(mask, reps.Codebook(indices, np.ones(2, np.float32))).values
    np.testing.assert_array_equal(book.indices, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(book.centroids, [1, 1])


def test_sparse_over_factors_leaves_them_alone():
    factor = reps.Dense(np.ones((2, 2), np.float32))
    mask = np.array([[True, False], [False, True]])
    rep = reps.sparse(mask, reps.LowRank(factor, factor))
    np.testing.assert_array_equal(rep.values.u.values, np.ones((2, 2)))
    np.testing.assert_array_equal(reps.materialize(rep), [[2, 0], [0, 2]])


@hypothesis.given(st.integers(0, 2**32 - 1))
def test_masks_merge_and_sparse_twice_is_once(seed):
    draw = np.random.default_rng(seed)
    first, second = draw.random((2, 3, 4)) < 0.6
    values = reps.Dense(draw.normal(size=(3, 4)).astype(np.float32))
    twice = reps.sparse(first, reps.sparse(second, values))
    once = reps.sparse(first & second, values)
    np.testing.assert_array_equal(twice.mask, first & second)
    jax.tree.map(np.testing.assert_array_equal, twice, once)
    np.testing.assert_array_equal(
        reps.materialize(once), np.where(first & second, values.values, 0)
    )
    assert reps.nonzero(once) == np.count_nonzero(first & second)
    assert reps.params(once) == 12


def test_counts_of_codes_count_weights():
    codes = np.array([[0, 3], [3, 1]], np.uint8)
    rep = reps.Quantized(
        codes, np.ones((1, 1), np.float32), np.full((1, 1), 3, np.uint8), 2
    )
    assert (reps.params(rep), reps.nonzero(rep)) == (4, 2)  # code 3 stands for 0
    book = reps.Codebook(codes, np.array([0, 1, 2, 0], np.float32))
    assert (reps.params(book), reps.nonzero(book)) == (4, 1)


def test_representations_are_pytrees_with_static_settings():
    rep = reps.Quantized(np.ones((2, 2), np.int8), np.ones((1, 1)), None, 4, 2)
    leaves, structure = jax.tree.flatten(rep)
    assert len(leaves) == 2
    again = jax.tree.unflatten(structure, leaves)
    assert (again.bits, again.group, again.zero_point) == (4, 2, None)


def test_thaw_is_materialize_at_each_leaf():
    mask = np.array([True, False])
    frozen = {
        "a": {"kernel": reps.Sparse(mask, reps.Dense(np.ones(2, np.float32)))},
        "b": np.arange(3),
    }
    thawed = reps.thaw(frozen)
    np.testing.assert_array_equal(thawed["a"]["kernel"], [1, 0])
    np.testing.assert_array_equal(thawed["b"], [0, 1, 2])
    assert isinstance(reps.of(frozen["b"]), reps.Dense)


def test_only_representations_materialize():
    with pytest.raises(TypeError, match="not a representation: int"):
        reps.materialize(3)
    with pytest.raises(TypeError, match="not a representation: int"):
        reps.sparse(np.ones(2, bool), 3)
