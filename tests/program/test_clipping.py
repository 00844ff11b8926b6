"""Clipped ranges against NumPy: order statistics, brute force and a naive loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import stats

from lib import errors
from lib.program import (
    CALIBRATIONS,
    Calibration,
    calibrate,
    entropy,
    histogram,
    mse,
    percentile,
)
from lib.program.histogram import BINS, count, merge

SIZE = 3000
KINDS = ("normal", "tails", "relu", "shifted", "outliers", "negative")
counted = jax.jit(count)


def sample(kind, seed=0):
    """Returns values as activations have them, float32 `[SIZE]`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(4, SIZE) if kind == "tails" else rng.normal(size=SIZE)
    x = {"relu": np.maximum(x, 0), "shifted": x + 1.5}.get(kind, x)
    if kind == "outliers":
        x[:2] = 40, -25
    if kind == "negative":
        x = -np.abs(x)
    return np.float32(x)


# Each search is compiled once, for all tests and all bits.
@jax.jit
def percentiles(h, percent):
    return percentile(percent=percent).ranges(h)


@functools.partial(jax.jit, static_argnames=("make", "symmetric"))
def searched(make, h, bits, symmetric):
    return make(bits=bits, symmetric=symmetric).ranges(h)


def found(make, h, bits, symmetric):
    smallest, largest = searched(make, h, bits, symmetric)
    assert smallest.dtype == largest.dtype == jnp.float32
    assert smallest.shape == largest.shape == ()
    return float(smallest), float(largest)


@settings(max_examples=15)
@given(st.sampled_from(KINDS), st.integers(0, 9999), st.floats(-9, 9))
def test_percentile_is_numpys_within_a_bin(kind, seed, power):
    x = np.float64(sample(kind, seed) * np.float32(2**power))
    h = counted(np.float32(x))
    width = float(histogram.width(h))
    for percent in (50.125, 75.0, 99.5, 100.0):
        smallest, largest = map(float, percentiles(h, percent))
        high = np.percentile(x, percent, method="inverted_cdf")
        low = -np.percentile(-x, percent, method="inverted_cdf")
        assert high <= largest < high + width and low - width < smallest <= low
        for outside in (x > largest, x < smallest):
            assert outside.mean() <= (1 - percent / 100) * (1 + 1e-5)
    assert (smallest, largest) == (x.min(), x.max())  # 100 %


def rounding_error(x, smallest, largest, bits, symmetric):
    """Returns the mean squared error of one grid, in NumPy's float64."""
    if symmetric:
        last = 2 ** (bits - 1) - 1
        first, scale = -last, max(-smallest, largest) / last
    else:
        scale = (largest - smallest) / (2**bits - 1)
        first = -round(-smallest / scale)
        last = first + 2**bits - 1
    return np.mean((np.clip(np.round(x / scale), first, last) * scale - x) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_is_as_good_as_brute_force(bits):
    for kind in KINDS:
        x = np.float64(sample(kind))
        h = counted(np.float32(x))
        most, low, high = np.abs(x).max(), min(x.min(), 0), max(x.max(), 0)
        shares = np.linspace(0, 1, 31)[1:]
        pairs = {
            True: [(-t, t) for t in most * np.linspace(0, 1, 301)[1:]],
            False: [(a * low, b * high) for a in shares for b in shares],
        }
        for symmetric, tried in pairs.items():
            least = min(rounding_error(x, *p, bits, symmetric) for p in tried)
            ours = rounding_error(x, *found(mse, h, bits, symmetric), bits, symmetric)
            assert ours <= 1.02 * least, (kind, symmetric, ours, least)


def test_mse_knows_what_is_best_for_a_normal_distribution():
    h = counted(np.float32(stats.norm.ppf((np.arange(SIZE) + 0.5) / SIZE)))
    # The best steps for 3 and 15 levels: Max 1960 (Quantizing for Minimum Distortion),
    # table II.
    for bits, step in ((2, 1.224), (4, 0.3534)):
        _, largest = found(mse, h, bits, True)
        np.testing.assert_allclose(largest / (2 ** (bits - 1) - 1), step, rtol=0.01)


def naive_divergence(line, first, end, levels):
    """Returns KL(P || Q) of the window [first, end) of a line of counts."""
    kept = line[first:end]
    p = kept.astype(float)
    p[0] += line[:first].sum()
    p[-1] += line[end:].sum()
    q = np.zeros(len(kept))
    level = np.arange(len(kept)) * levels // len(kept)
    for one in range(levels):
        members = [i for i in np.flatnonzero(level == one) if kept[i] > 0]
        for i in members:
            q[i] = kept[members].sum() / len(members)
    q /= max(q.sum(), 1)
    divergence = 0.0
    for i in np.flatnonzero(p):
        share = p[i] / p.sum()
        divergence += share * np.log(share / (q[i] or 1e-4 / max(kept.sum(), 1)))
    return divergence


def check_entropy(kind, bits, symmetric, thresholds):
    """Compares with the loop at some thresholds and around the chosen one."""
    x = sample(kind)
    h = counted(x)
    width = float(histogram.width(h))
    smallest, largest = found(entropy, h, bits, symmetric)
    line, zero = histogram.line(h, folded=symmetric)
    line = np.asarray(line[0]).astype(int)
    bins = np.flatnonzero(line)
    before, after = max(zero - bins[0], 0), max(bins[-1] + 1 - zero, 0)
    levels = 2 ** (bits - symmetric)
    most = max(before, after)

    def at(t):
        window = zero - min(t, before), zero + min(t, after)
        return naive_divergence(line, *window, levels)

    chosen = int(np.ceil(max(-smallest, largest) / width))
    tried = set(np.linspace(levels, most, thresholds).astype(int))
    tried |= {t for t in (chosen - 1, chosen + 1) if levels <= t <= most}
    assert at(chosen) <= min(map(at, tried)) + 1e-6
    t = chosen * width
    ends = (
        (min(t, np.abs(x).max()),) * 2
        if symmetric
        else (min(t, max(-x.min(), 0)), min(t, max(x.max(), 0)))
    )
    assert (-smallest, largest) == ends


def test_entropy_is_the_loop():
    check_entropy("outliers", 4, True, 12)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_entropy_is_the_loop_everywhere(bits, symmetric):
    for kind in ("outliers", "shifted" if bits == 4 else "negative"):
        check_entropy(kind, bits, symmetric, 12)


def every(h):
    """Returns the range of each calibration by its name."""
    return {
        "percentile": percentiles(h, 99.0),
        "mse": searched(mse, h, 8, True),
        "mse affine": searched(mse, h, 4, False),
        "entropy": searched(entropy, h, 8, True),
        "entropy affine": searched(entropy, h, 8, False),
    }


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 5.3, -5.3, 1e-35, -3e38])
def test_tensors_of_one_value_have_a_sane_range(value):
    h = counted(np.full(SIZE, value, np.float32))
    for name, ends in every(h).items():
        smallest, largest = map(float, ends)
        assert np.isfinite([smallest, largest]).all() and smallest <= largest, name
        # It reaches the value but for a bin, and goes no further.
        reached = max(abs(smallest), abs(largest))
        assert 0 <= abs(np.float32(value)) - reached <= float(histogram.width(h)), name


@pytest.mark.slow
def test_an_outlier_is_given_up():
    x = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    x[0] = 30
    for name, (smallest, largest) in every(counted(x)).items():
        if name == "mse":  # in 8 bits its error would be larger than all the others'
            assert 29 < -smallest == largest <= 30
        else:
            assert -6 < smallest < -1 and 1 < largest < 15, name


def scanned(w, x):
    def turn(x, w):
        with jax.named_scope("turn"):
            return jnp.tanh(x @ w) * 2, None

    return lax.scan(turn, x, w)[0]


W = np.float32(np.random.default_rng(1).normal(size=(2, 4, 4)))
BATCHES = [
    (np.float32(np.random.default_rng(i).normal(0, i, (50, 4))),) for i in (1, 2, 3)
]


def seen():
    """Returns what enters each turn over all batches."""
    first = np.concatenate([x for (x,) in BATCHES])
    return first, jnp.tanh(first @ W[0]) * 2


@pytest.mark.slow
def test_calibrate_folds_batches_and_scans_and_traces_once():
    traces = []

    def traced(w, x):
        traces.append(x)
        return scanned(w, x)

    how = percentile(percent=99.0)
    smallest, largest = calibrate(traced, W, BATCHES, how)["turn"]["lhs"]
    assert len(traces) == 2  # for the order of the sites, and for the run
    assert smallest.shape == largest.shape == (2,)
    for i, x in enumerate(seen()):
        high = np.percentile(x, 99, method="inverted_cdf")
        low = -np.percentile(-x, 99, method="inverted_cdf")
        # The extreme is below 16, so no bin is wider.
        np.testing.assert_allclose(
            (smallest[i], largest[i]), (low, high), atol=16 / BINS
        )


@pytest.mark.slow
def test_mapped_over_a_scan_is_one_by_one():
    def both(h):
        return searched(mse, h, 4, False), searched(entropy, h, 8, True)

    how = Calibration(count, merge, both)
    mapped = calibrate(scanned, W, BATCHES, how)["turn"]["lhs"]
    for i, x in enumerate(seen()):
        one = both(counted(x))
        got = jax.tree.map(lambda bound, i=i: bound[i], mapped)
        np.testing.assert_allclose(got, one, rtol=1e-6)


def test_a_value_that_is_not_finite_is_still_reported():
    data = [(BATCHES[0][0].copy(),)]
    data[0][0][2, 1] = np.nan
    with pytest.raises(errors.UserError, match="lhs of 'turn' holds NaN or infinity"):
        calibrate(scanned, W, data, percentile(percent=99.0))


def test_mistakes():
    for percent in (50, 100.1, 0.9999, float("nan")):
        with pytest.raises(errors.UserError, match="more than 50 and at most 100, got"):
            percentile(percent=percent)
    for make in (mse, entropy):
        with pytest.raises(errors.UserError, match=f"{make.__name__}: bits is a whole"):
            make(bits=9, symmetric=True)
    with pytest.raises(errors.UserError, match="did you mean 'percentile'"):
        errors.lookup(CALIBRATIONS, "percentil", "calibration")


def test_bits_and_percent_may_be_traced_and_nothing_compiles_twice():
    h = counted(sample("tails"))
    widest = [found(mse, h, bits, True)[1] for bits in (2, 3, 4, 5, 8)]
    assert widest == sorted(widest)
    widest = [percentiles(h, percent)[1] for percent in (60.0, 90.0, 99.0)]
    assert widest == sorted(widest)
    # Whatever came before: one for each way and symmetry.
    assert searched._cache_size() <= 4 and percentiles._cache_size() <= 1
