"""Damage on answers made by hand, and calibration against a loop and by design."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.diagnosis import damage

HOW = dict(bins=10, confidence=0.9, samples=200, seed=0)


def logits_of(guesses, classes=3, sure=4.0):
    return sure * np.eye(classes)[np.asarray(guesses)]


LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
BEFORE = [0, 0, 0, 1, 1, 1, 2, 0]
AFTER = [0, 0, 1, 0, 1, 1, 0, 1]


def test_flips_are_counted_though_the_accuracy_is_equal():
    found = damage.compare(logits_of(BEFORE), logits_of(AFTER), LABELS, **HOW)
    assert found.before == found.after == 5 / 8
    assert found.difference.mean == 0 and found.difference.low < 0
    assert (found.lost, found.won, found.moved, found.p) == (1, 1, 2, 1.0)
    told = [(c.label, c.count, c.lost, c.won) for c in found.classes]
    assert told == [(0, 4, 1, 1), (1, 3, 0, 0), (2, 1, 0, 0)]
    assert [c.before for c in found.classes] == [0.75, pytest.approx(2 / 3), 0]
    # Only the third example lost any of its own class's share.
    assert found.worst.tolist() == [2]


def test_a_class_without_examples_is_no_error():
    found = damage.compare(
        logits_of(BEFORE, 4), logits_of(AFTER, 4), LABELS, **HOW
    ).classes[3]
    assert found == damage.Class(3, 0, 0.0, 0.0, 0, 0, 1.0)


def test_a_class_that_got_worse_is_found():
    labels = np.repeat([0, 1], 200)
    after = labels.copy()
    after[200:230] = 0
    found = damage.compare(logits_of(labels, 2), logits_of(after, 2), labels, **HOW)
    assert found.classes[0].p == 1 and found.classes[1].p < 1e-8
    assert found.difference.high < 0
    assert found.difference.mean == pytest.approx(-30 / 400)


@given(st.integers(0, 2**31), st.integers(1, 20))
def test_the_calibration_error_is_what_a_loop_says(seed, bins):
    rng = np.random.default_rng(seed)
    shares = damage.shares(2 * rng.standard_normal((50, 4)))
    labels = rng.integers(0, 4, 50)
    expected = 0.0
    for b in range(bins):
        inside = [i for i in range(50) if b / bins < shares[i].max() <= (b + 1) / bins]
        if inside:
            accuracy = np.mean([shares[i].argmax() == labels[i] for i in inside])
            sure = np.mean([shares[i].max() for i in inside])
            expected += len(inside) / 50 * abs(accuracy - sure)
    found = damage.calibration_error(shares, labels, bins)
    assert found == pytest.approx(expected, abs=1e-9)


def test_who_is_as_sure_as_right_is_calibrated():
    rng = np.random.default_rng(0)
    shares = damage.shares(rng.standard_normal((40_000, 3)))
    drawn = rng.random((40_000, 1))
    labels = (drawn > shares.cumsum(-1)[:, :2]).sum(-1)  # as the shares say
    assert damage.calibration_error(shares, labels, 15) < 0.01
    bold = damage.shares(4 * np.log(shares))
    assert damage.calibration_error(bold, labels, 15) > 0.1


def test_shares_are_a_softmax_of_any_logits():
    found = damage.shares(np.array([[1000.0, 1000.0], [0.0, np.log(3)]]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75]])
