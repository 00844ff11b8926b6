"""Ranks: the least that keeps an energy, and a budget spent where it keeps most."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lib import errors
from lib.transforms import ranks


@pytest.mark.parametrize(
    ("energy", "rank"),
    [(0.5, 1), (0.7, 1), (0.71, 2), (0.9, 2), (0.95, 3), (1.0, 3), (1e-9, 1)],
)
def test_literal_energies(energy, rank):
    # Shares of 7, 2 and 1 tenths; the 0 is never needed.
    assert ranks.by_energy(np.array([7.0, 2.0, 1.0, 0.0]), energy) == rank


def test_nothing_has_rank_one():
    assert ranks.by_energy(np.zeros(3), 0.9) == 1


@pytest.mark.parametrize(
    ("shape", "rank"), [((6, 4), 2), ((2, 2), 1), ((3, 3), 1), ((1, 8), 0), ((0, 5), 0)]
)
def test_largest_rank_that_pays(shape, rank):
    assert ranks.largest(*shape) == rank
    assert rank * sum(shape) <= math.prod(shape) or not rank
    assert (rank + 1) * sum(shape) > math.prod(shape)


def naive(energies, shapes, budget):
    """One step at a time: of all that fit, the one with most energy a weight."""

    def cost(path, rank):
        return math.prod(shapes[path]) if rank is None else rank * sum(shapes[path])

    def kept(path, rank):
        return sum(energies[path][:rank])

    chosen = {p: 1 if sum(s) <= math.prod(s) else None for p, s in shapes.items()}
    total = sum(math.prod(s) for s in shapes.values())
    if sum(cost(p, r) for p, r in chosen.items()) > budget * total:
        return None
    while True:
        best = None
        for path in sorted(chosen):
            rank = chosen[path]
            if rank is None:
                continue
            pays = (rank + 1) * sum(shapes[path]) <= math.prod(shapes[path])
            following = rank + 1 if pays else None
            more = cost(path, following) - cost(path, rank)
            spent = sum(cost(p, r) for p, r in chosen.items())
            if spent + more > budget * total:
                continue
            gain = kept(path, following) - kept(path, rank)
            worth = gain / more if more else math.inf
            if best is None or worth > best[0]:
                best = (worth, path, following)
        if best is None:
            return chosen
        chosen[best[1]] = best[2]


@hypothesis.given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(1, 16),
    st.integers(0, 2**32 - 1),
)
def test_budget_is_spent_as_naively(sizes, sixteenths, seed):
    rng = np.random.default_rng(seed)
    shapes = {"dacb"[i]: shape for i, shape in enumerate(sizes)}
    # Whole numbers, so that sums are exact; some of them equal, some 0.
    energies = {
        p: np.sort(rng.integers(0, 9, min(s)).astype(np.float64))[::-1]
        for p, s in shapes.items()
    }
    expected = naive(energies, shapes, sixteenths / 16)
    if expected is None:
        with pytest.raises(errors.UserError, match="rank 1 of every leaf takes"):
            ranks.by_budget(energies, shapes, sixteenths / 16)
        return
    assert ranks.by_budget(energies, shapes, sixteenths / 16) == expected
    if sixteenths == 16:
        assert set(expected.values()) == {None}


def test_a_decimal_budget_is_met_exactly():
    # 20 of 50 weights are two factors of rank 1, and nothing is left over.
    shapes = {"a": (5, 5), "b": (5, 5)}
    energies = {"a": np.ones(5), "b": np.ones(5)}
    assert ranks.by_budget(energies, shapes, 0.4) == {"a": 1, "b": 1}
