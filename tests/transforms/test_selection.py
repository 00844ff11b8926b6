"""Selection by bisection against a sort."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.transforms import selection

SHAPES = [(7,), (3, 4), (2, 1, 5)]  # 29 scores
TOTAL = 29
JITTED = jax.jit(selection.keep_all_but)
SWEPT = jax.jit(jax.vmap(selection.keep_all_but, in_axes=(None, 0)))


def oracle(scores, k):
    """Sorts (score, place from the end): of equal scores the last goes first."""
    flat = np.concatenate([np.ravel(s) for s in scores]).astype(np.float64)
    worst_first = sorted(range(flat.size), key=lambda i: (flat[i], -i))
    keep = np.ones(flat.size, bool)
    keep[worst_first[:k]] = False
    pieces = np.split(keep, np.cumsum([np.size(s) for s in scores])[:-1])
    return [p.reshape(np.shape(s)) for p, s in zip(pieces, scores, strict=True)]


def split(values):
    pieces = np.split(np.float32(values), np.cumsum([np.prod(s) for s in SHAPES])[:-1])
    return [p.reshape(s) for p, s in zip(pieces, SHAPES, strict=True)]


def check(scores, k, masks):
    assert [m.dtype for m in masks] == [bool] * len(scores)
    assert sum(int((~np.asarray(m)).sum()) for m in masks) == k
    for mask, expected in zip(masks, oracle(scores, k), strict=True):
        np.testing.assert_array_equal(mask, expected)


any_float = st.floats(width=32, allow_nan=False, allow_subnormal=False).map(
    lambda x: x + 0.0  # one zero only; scores are magnitudes
)
few_values = st.sampled_from([0.0, 0.25, 0.25000003, 1.0, 3e38, np.inf])
exponents = st.integers(-37, 38).map(lambda e: 10.0**e)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.one_of(
        *(
            st.lists(kind, min_size=TOTAL, max_size=TOTAL)
            for kind in (any_float, few_values, exponents)
        )
    ),
    st.integers(0, TOTAL),
)
def test_is_the_sort(values, k):
    scores = split(values)
    check(scores, k, JITTED(scores, k))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(TOTAL),
        np.full(TOTAL, 0.3),
        np.full(TOTAL, np.inf),
        np.arange(TOTAL),
        np.arange(TOTAL)[::-1],
        np.r_[np.zeros(14), np.full(15, np.inf)],
        np.r_[-np.inf, np.linspace(-1, 1, TOTAL - 2), np.inf],
        np.r_[np.full(TOTAL - 1, 1e-30), 1e30],
        10.0 ** np.linspace(-37, 38, TOTAL),
    ],
)
def test_every_count_at_once(values):
    scores = split(values)
    swept = SWEPT(scores, jnp.arange(TOTAL + 1))
    for k in range(TOTAL + 1):
        check(scores, k, [m[k] for m in swept])


def test_not_jitted_and_number_of_scores_mapped():
    scores = split(np.random.default_rng(0).normal(size=TOTAL))
    for k in (0, 1, 14, TOTAL):
        check(scores, k, selection.keep_all_but(scores, k))
    rows = np.random.default_rng(1).integers(0, 4, (4, 29)).astype(np.float32)
    ks = jnp.asarray([0, 3, 17, 29])
    (masks,) = jax.vmap(selection.keep_all_but)([rows], ks)
    for row, k, mask in zip(rows, ks, masks, strict=True):
        check([row], int(k), [mask])


def test_bfloat16_scores_tie_as_they_are_stored():
    scores = [jnp.asarray([1.0, 1.001, 0.5, 2.0], jnp.bfloat16)]  # the first two tie
    (mask,) = selection.keep_all_but(scores, 2)
    np.testing.assert_array_equal(mask, [True, False, False, True])


LARGE = 100_000
STRIDES = (47, 48, 49)  # a sample of about 2048 may see only these


def large(kind):
    score = np.abs(np.random.default_rng(0).standard_cauchy(LARGE))
    match kind:
        case "few":
            score = np.round(np.minimum(score, 4))
        case "equal":
            score = np.ones(LARGE)
        case "low" | "high":
            for stride in STRIDES:
                score[::stride] = {"low": 0.0, "high": 1e9}[kind]
        case "sorted":
            score = np.sort(score)
    return score.astype(np.float32)


@pytest.mark.parametrize("kind", ["cauchy", "few", "equal", "low", "high", "sorted"])
def test_large_leaves_whatever_a_sample_of_them_says(kind):
    score = large(kind)
    worst_first = np.lexsort((-np.arange(LARGE), score))
    for k in (0, 1, 2000, 50_000, 90_000, LARGE - 1, LARGE):
        expected = np.ones(LARGE, bool)
        expected[worst_first[:k]] = False
        (mask,) = JITTED([score], k)
        np.testing.assert_array_equal(mask, expected)


@hypothesis.given(st.tuples(*[st.floats(width=32, allow_nan=False)] * 6))
def test_keys_order_as_the_scores(values):
    values = np.float32(values)
    keys = np.asarray(selection.order(jnp.asarray(values)))
    larger = values[:, None] > values
    assert (keys[:, None] > keys)[larger].all()


def test_negative_zero_goes_before_zero():
    keys = selection.order(jnp.float32([-1e-30, -0.0, 0.0, 1e-30]))
    assert (jnp.diff(keys) > 0).all()
