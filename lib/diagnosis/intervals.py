"""How far a measured mean may be from the true one."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from lib import errors


class Interval(NamedTuple):
    """A mean with the ends of its interval.

    Attributes:
      mean: of what was measured.
      spread: standard deviation of what was measured; of one value 0.
      low: lower end.
      high: upper end.
    """

    mean: float
    spread: float
    low: float
    high: float


def level(confidence: float) -> float:
    """Returns the confidence; raises a `UserError` unless it is between 0 and 1."""
    if not 0 < confidence < 1:
        raise errors.UserError(f"confidence is between 0 and 1, got {confidence}")
    return confidence


def of_folds(
    values: np.ndarray, *, held_out: float, train: float, confidence: float
) -> Interval:
    """Returns the corrected resampled t interval (Nadeau & Bengio 2003, eq. 9).

    Folds share most of what they learn from, so their mean is less certain than that
    of independent runs: its variance is `(1/J + held_out/train) s^2` of J values with
    the variance s^2.

    Args:
      values: `[J]`, one a fold of every repeat, J from 2.
      held_out: examples that a fold is judged on.
      train: examples that it learns from.
      confidence: in (0, 1).
    """
    values = np.asarray(values, np.float64)
    count, spread = len(values), float(values.std(ddof=1))
    half = spread * np.sqrt(1 / count + held_out / train)
    half *= stats.t.ppf(0.5 + level(confidence) / 2, count - 1)
    mean = float(values.mean())
    return Interval(mean, spread, mean - float(half), mean + float(half))


def of_runs(values: np.ndarray, confidence: float) -> Interval:
    """Returns Student's t interval of independent values `[n]`; of one, a point."""
    values = np.asarray(values, np.float64)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Interval(mean, 0.0, mean, mean)
    spread = float(values.std(ddof=1))
    quantile = stats.t.ppf(0.5 + level(confidence) / 2, count - 1)
    half = float(quantile * spread / np.sqrt(count))
    return Interval(mean, spread, mean - half, mean + half)


def bootstrap(
    values: np.ndarray, *, confidence: float, samples: int, seed: int
) -> Interval:
    """Returns the percentile bootstrap interval of a mean (Efron 1979).

    Args:
      values: `[n]`, one an example; of a comparison, the difference there.
      confidence: in (0, 1).
      samples: how often the examples are drawn anew.
      seed: of the draws.
    """
    values = np.asarray(values, np.float64)
    rng, size = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(0, size, size)].mean() for _ in range(samples)]
    tail = (1 - level(confidence)) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    spread = float(values.std(ddof=1)) if size > 1 else 0.0
    return Interval(float(values.mean()), spread, float(low), float(high))
