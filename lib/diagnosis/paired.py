"""Whether two classifiers differ on one test set by more than chance.

Each image is guessed by both, so their accuracies are not independent: only images on
which one is right and the other wrong say which of them is better.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Paired(NamedTuple):
    """What two classifiers did with the same images.

    Attributes:
      first: how many images the first alone has right.
      second: how many the second alone has right.
      p: how likely a difference at least as large is between equals.
    """

    first: int
    second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
    """Returns McNemar's exact test, two-sided (McNemar 1947, Psychometrika 12).

    Of equals, each image that one alone has right is a fair coin's throw.

    Args:
      first: bool `[n]`, which images the first has right.
      second: the same of the second, in the same order.
    """
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    p = stats.binomtest(alone[0], sum(alone)).pvalue if any(alone) else 1.0
    return Paired(*alone, float(p))
