"""Intervals against tables of t, and against how often they hold the truth."""

import numpy as np
import pytest

from lib import errors
from lib.diagnosis import intervals

# Two-sided 95 % quantiles of Student's t, from any table.
T = {4: 2.776, 9: 2.262}
VALUES = np.array([0.90, 0.92, 0.94, 0.96, 0.98])


def test_folds_are_corrected_for_what_they_share():
    found = intervals.of_folds(VALUES, held_out=20, train=80, confidence=0.95)
    spread = np.sqrt(0.001)
    half = T[4] * np.sqrt(1 / 5 + 20 / 80) * spread
    np.testing.assert_allclose(
        found, (0.94, spread, 0.94 - half, 0.94 + half), rtol=1e-3
    )


def test_independent_runs_are_not():
    found = intervals.of_runs(VALUES, 0.95)
    half = T[4] * np.sqrt(0.001 / 5)
    np.testing.assert_allclose(
        found, (0.94, np.sqrt(0.001), 0.94 - half, 0.94 + half), rtol=1e-3
    )
    assert intervals.of_runs(VALUES[:1], 0.95) == (0.9, 0.0, 0.9, 0.9)


def test_a_bootstrap_of_many_is_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = intervals.bootstrap(values, confidence=0.95, samples=2000, seed=1)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(found.low, values.mean() - half, atol=0.02)
    np.testing.assert_allclose(found.high, values.mean() + half, atol=0.02)
    again = intervals.bootstrap(values, confidence=0.95, samples=2000, seed=1)
    assert found == again


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(errors.UserError, match="between 0 and 1, got"):
        intervals.of_runs(VALUES, confidence)
