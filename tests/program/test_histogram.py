"""The streaming histogram against np.histogram of everything at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.program import histogram
from lib.program.histogram import BINS

SIZE = 24
count, merge = jax.jit(histogram.count), jax.jit(histogram.merge)


def exact(limbs):
    """Returns counts as Python's whole numbers."""
    low, high = np.asarray(limbs).astype(object)
    return low + high * 2**20


def reference(x):
    """Returns (exponent, counts a side, zeros) from NumPy, in float64."""
    x = np.asarray(x, np.float64)
    most = max(np.abs(x).max(), 2.0**-100)
    exponent = int(np.ceil(np.log2(most)))
    borders = np.arange(BINS + 1) * 2.0**exponent / BINS
    sides = []
    for magnitudes in (-x[x < 0], x[x > 0]):
        # NumPy's bins are open at their upper end, ours at their lower one.
        found, _ = np.histogram(-magnitudes, -borders[::-1])
        sides.append(found[::-1])
    return exponent, np.array(sides), int((x == 0).sum())


def check(h, x):
    exponent, counts, zeros = reference(x)
    assert int(h.exponent) == exponent
    np.testing.assert_array_equal(exact(h.counts), counts)
    assert exact(h.zeros) == zeros
    assert (exact(h.counts).sum() + exact(h.zeros)) == np.size(x)
    assert (float(h.smallest), float(h.largest)) == (np.min(x), np.max(x))


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


@st.composite
def batches(draw):
    """Draws batches of one size whose ranges lie up to 2**30 apart; some are zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        x = rng.normal(draw(st.sampled_from([-1, 0, 1])), 1, SIZE)
        how = draw(st.sampled_from([np.asarray, np.round, np.abs, np.zeros_like]))
        found.append((how(x) * 2.0 ** draw(st.integers(-15, 15))).astype(np.float32))
    return found


@settings(max_examples=20)
@given(batches())
def test_merged_is_the_histogram_of_everything(data):
    total = functools.reduce(merge, map(count, data))
    check(total, np.concatenate(data))
    # The order does not matter, to the last bit.
    same(functools.reduce(merge, map(count, data[::-1])), total)


def test_literal():
    h = count(jnp.float32([-3.0, 0.0, 1.0, 2.0, 4.0, 1e-6, -0.0]))
    assert int(h.exponent) == 2 and float(histogram.width(h)) == 4 / BINS
    places = np.argwhere(exact(h.counts)).tolist()
    step = BINS // 4  # what lies on a border belongs to the bin below, as 4 itself
    assert places == [
        [0, 3 * step - 1],
        [1, 0],
        [1, step - 1],
        [1, 2 * step - 1],
        [1, BINS - 1],
    ]
    assert exact(h.zeros) == 2
    line, zero = histogram.line(h, folded=False)
    assert (zero, int(np.argmax(exact(line)))) == (BINS, BINS - 3 * step)
    assert [float(x) for x in histogram.ends(h)] == [-3 * step, BINS]
    folded, zero = histogram.line(h, folded=True)
    assert (zero, exact(folded).sum()) == (0, 5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 2e-38, -3.4e38, 2.0**127, 2.0**-100])
def test_the_ends_of_float32(value):
    data = np.full(SIZE, value, np.float32)
    check(count(data), data)
    merged = merge(count(data), count(np.ones(SIZE, np.float32)))
    check(merged, np.append(data, np.ones(SIZE, np.float32)))


def test_what_is_not_finite_counts_as_zero():
    x = np.linspace(-1, 1, SIZE).astype(np.float32)
    x[:3] = np.nan, np.inf, -np.inf
    check(count(x), np.where(np.isfinite(x), x, 0))


def test_counts_go_beyond_32_bits():
    x = np.linspace(-1, 2, SIZE).astype(np.float32)
    h = count(x)
    for _ in range(40):
        h = merge(h, h)
    _, counts, zeros = reference(x)
    np.testing.assert_array_equal(exact(h.counts), counts.astype(object) * 2**40)
    assert exact(h.zeros) == zeros * 2**40
    h = merge(
        h, count(np.full(SIZE, 2.0**12, np.float32))
    )  # all of x in one bin a side
    negative, positive = exact(h.counts)
    assert negative[0] == counts[0].sum() * 2**40
    assert (positive[0], positive[-1]) == (counts[1].sum() * 2**40, SIZE)
    whole = np.asarray(histogram.whole(h.counts), np.float64)
    np.testing.assert_allclose(whole, exact(h.counts).astype(float), rtol=1e-7)


def test_mapped_is_one_by_one_and_nothing_compiles_twice():
    rng = np.random.default_rng(0)
    scale = np.float32([[1], [1e-9], [77]])
    a, b = (rng.normal(size=(3, SIZE)).astype(np.float32) * s for s in (1, scale))
    once = jax.jit(jax.vmap(histogram.merge))
    counted = [jax.tree.map(lambda *x: jnp.stack(x), *map(count, x)) for x in (a, b)]
    merged = once(*counted)
    for i in range(3):
        one = merge(count(a[i]), count(b[i]))
        same([x[i] for x in merged], one)
    assert max(once._cache_size(), merge._cache_size()) <= 1
