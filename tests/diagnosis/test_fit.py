"""Verdicts on curves whose meaning is plain."""

import pytest

from lib.diagnosis import fit
from lib.diagnosis.fit import Point

LIMITS = fit.Thresholds(train_error=0.05, gap=0.02, gain=0.15, margin=0.005)
SIZES = (10, 100, 1000)


def judged(by_data, by_model, own=1, examples=2000):
    """Each point is (training error, held-out error)."""
    data = [Point(100 * 2**i, *e) for i, e in enumerate(by_data)]
    models = [Point(size, *e) for size, e in zip(SIZES, by_model, strict=True)]
    return fit.judge(data, models, own, examples, LIMITS)


def test_a_flat_error_that_is_mostly_of_training_underfits():
    errors = [(0.28, 0.33), (0.29, 0.31), (0.30, 0.31)]
    found = judged(errors, [(0.4, 0.41), (0.30, 0.31), (0.1, 0.14)])
    assert found.kind == fit.UNDERFITS
    assert found.larger == 2 and found.smaller is None
    told = " ".join(found.evidence)
    assert "training error 30.00 %, held out 31.00 %" in told
    assert "does not hold what it is shown" in told
    assert "a model of 1,000 parameters is better" in told


def test_what_no_larger_model_mends_may_be_noise():
    errors = [(0.28, 0.33), (0.29, 0.31), (0.30, 0.31)]
    found = judged(errors, [(0.4, 0.41), (0.30, 0.31), (0.29, 0.31)])
    assert found.kind == fit.UNDERFITS and found.larger is None
    assert "may be noise in the labels" in found.evidence[-1]


def test_a_larger_model_that_is_better_underfits_too():
    errors = [(0.03, 0.05), (0.03, 0.04), (0.03, 0.04)]
    found = judged(errors, [(0.1, 0.1), (0.03, 0.04), (0.0, 0.02)])
    assert found.kind == fit.UNDERFITS and found.larger == 2


def test_a_gap_that_a_smaller_model_closes_overfits():
    errors = [(0, 0.20), (0, 0.15), (0, 0.10)]
    found = judged(errors, [(0.06, 0.10), (0, 0.10), (0, 0.11)])
    assert found.kind == fit.OVERFITS and found.smaller == 0
    assert "a model of 10 parameters is as good" in " ".join(found.evidence)


def test_a_gap_that_data_do_not_close_overfits():
    errors = [(0, 0.12), (0, 0.105), (0, 0.10)]
    found = judged(errors, [(0.1, 0.2), (0, 0.10), (0, 0.10)])
    assert found.kind == fit.OVERFITS and found.smaller is None
    assert "took away 4.76 % of it" in " ".join(found.evidence)


def test_a_gap_that_data_close_is_of_too_little_data():
    errors = [(0, 0.20), (0, 0.14), (0, 0.10)]
    found = judged(errors, [(0.1, 0.2), (0, 0.10), (0, 0.10)])
    assert found.kind == fit.STARVED
    assert "from 200 to 400 training examples" in " ".join(found.evidence)


def test_small_errors_of_both_kinds_are_about_right():
    errors = [(0.01, 0.06), (0.01, 0.03), (0.01, 0.02)]
    found = judged(errors, [(0.1, 0.11), (0.01, 0.02), (0.01, 0.02)])
    assert found.kind == fit.FITS


def test_a_gap_within_the_doubt_is_none():
    errors = [(0, 0.08), (0, 0.05), (0, 0.03)]
    models = [(0.1, 0.11), (0, 0.03), (0, 0.03)]
    assert judged(errors, models, examples=10_000).kind == fit.STARVED
    # 0.03 of 100 examples are 3: two standard errors are 3.4 points.
    assert judged(errors, models, examples=100).kind == fit.FITS


@pytest.mark.parametrize("sizes", [(400,), (100, 400), (100, 250, 400)])
def test_a_doubling_is_read_from_any_two_sizes(sizes):
    """On a power law it does not matter which: half the exponent, always."""
    points = [Point(n, 0.0, 4 * n**-0.5) for n in sizes]
    gain, half = fit._doubling(points)
    if len(sizes) == 1:
        assert (gain, half) == (0.0, None)
    else:
        assert gain == pytest.approx(1 - 2**-0.5)


def test_without_errors_nothing_is_wrong():
    found = judged([(0, 0.1), (0, 0.0)], [(0.1, 0.1), (0, 0), (0, 0)])
    assert found.kind == fit.FITS
    found = judged([(0, 0.0), (0, 0.0)], [(0, 0), (0, 0), (0, 0)])
    assert found.kind == fit.FITS and found.smaller == 0
