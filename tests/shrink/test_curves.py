"""The order in which units of all groups go, against a table and a search of all."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from lib import shrink
from lib.shrink import curves
from tests.shrink.test_choose import GROUPS, SCORES, SIZES, by_hand

WHOLE = by_hand({})
# Of each group, what one unit of it saves: 2 rows by what it reads and is read by.
SAVED = {"a": 2 * (3 + 5), "b": 2 * (8 + 4), "c": 2 * (5 + 2)}


def test_points_are_none_eighths_and_all_but_one():
    assert curves.counts(1) == (0,)
    assert curves.counts(4) == (0, 1, 2, 3)
    assert curves.counts(10) == (0, 2, 3, 4, 5, 7, 8, 9)
    assert curves.counts(64) == (0, 8, 16, 24, 32, 40, 48, 56, 63)


def test_flat_curves_go_first():
    costs = {
        "a": [1.0, *[1.0 + 16 * n for n in range(1, 8)]],  # 1 a multiply-accumulate
        "b": [0.5, 0.25, 0.5 + 24, 0.5 + 480, 0.5 + 960],  # less is nothing, then 1
        "c": [0.0, 140.0, 141.0, 141.0],  # 10, and much less after it: on the hull 3.4
    }
    places = curves.by_curve(GROUPS, SCORES, costs)
    # The first of b; then the second of b and seven of a, the last of which goes with
    # the one before it, by their shares: 0/8, 1/8, 1/5, 2/8...; then c; then b.
    wanted = {
        "a": [9, 8, 7, 6, 5, 4, 2, 1],
        "b": [14, 0, 15, 3, 16],
        "c": [11, 12, 13, 10],
    }
    assert {name: x.tolist() for name, x in places.items()} == wanted


CONVEX = st.fixed_dictionaries(
    {
        name: st.lists(st.integers(0, 50), min_size=n - 1, max_size=n - 1).map(
            lambda steps: [0, *itertools.accumulate(sorted(steps))]
        )
        for name, n in SIZES.items()
    }
)


@given(CONVEX, st.integers(0, 14))
def test_no_choice_that_saves_as_much_costs_less(costs, count):
    """Of convex curves: what goes first is best among all that save as much or more.

    Savings of groups are added up, as the curves do, which look at one at a time.
    """
    places = curves.by_curve(GROUPS, SCORES, costs)
    going = {
        name: min(int((places[name] < count).sum()), n - 1) for name, n in SIZES.items()
    }

    def cost(some):
        return sum(costs[name][n] for name, n in some.items())

    def saved(some):
        return sum(SAVED[name] * n for name, n in some.items())

    for other in itertools.product(*(range(n) for n in SIZES.values())):
        some = dict(zip(SIZES, other, strict=True))
        if saved(some) >= saved(going):
            assert cost(some) >= cost(going) - 1e-9


@pytest.mark.parametrize("name", SIZES)
def test_within_a_group_the_scores_decide(name):
    rng = np.random.default_rng(0)
    costs = {k: rng.random(len(curves.counts(n))) for k, n in SIZES.items()}
    places = curves.by_curve(GROUPS, SCORES, costs)
    np.testing.assert_array_equal(
        np.argsort(places[name]), np.argsort(SCORES[name], kind="stable")
    )
    every = np.concatenate([*places.values()])
    assert sorted(every) == list(range(sum(SIZES.values())))


def test_what_one_unit_saves():
    for name, n in SAVED.items():
        assert WHOLE - shrink.macs(GROUPS, {name: [0]}) == n


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0, 10)), min_size=1, max_size=9),
)
def test_the_hull_is_that_of_isotonic_regression(steps):
    widths, heights = np.array(steps).T
    saved = np.concatenate([[0], np.cumsum(widths)])
    added = np.concatenate([[0], heights])
    found = curves._slopes(saved, added)
    rises = np.diff(added) / widths
    wanted = scipy.optimize.isotonic_regression(rises, weights=widths).x
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
