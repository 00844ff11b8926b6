"""McNemar's test against sums of binomial coefficients."""

import math

import numpy as np
import pytest

from lib.diagnosis import paired


def right(*counts):
    """Which of two has images right: both, the first alone, the second, neither."""
    pattern = [(True, True), (True, False), (False, True), (False, False)]
    both = np.repeat(np.asarray(pattern), counts, axis=0)
    both = np.random.default_rng(0).permutation(both)
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize("b, c", [(0, 0), (1, 0), (3, 3), (2, 9), (14, 5), (31, 30)])
def test_only_images_that_one_alone_has_right_count(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    for both, neither in ((50, 7), (900, 0)):
        found = paired.mcnemar(*right(both, b, c, neither))
        assert (found.first, found.second) == (b, c)
        assert found.p == pytest.approx(min(1, 2 * tail), rel=1e-9)
