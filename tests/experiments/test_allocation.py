"""The knapsack against brute force."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments import allocation
from experiments.allocation import Choice, Option

OPTIONS = st.lists(
    st.builds(Option, st.integers(1, 30), st.integers(0, 30).map(float)),
    min_size=1,
    max_size=4,
)
LAYERS = st.lists(OPTIONS, min_size=1, max_size=5)


def all_choices(layers):
    for places in itertools.product(*(range(len(one)) for one in layers)):
        taken = [layer[i] for layer, i in zip(layers, places, strict=True)]
        yield Choice(
            sum(o.bytes for o in taken), sum(o.cost for o in taken), tuple(places)
        )


@given(LAYERS, st.integers(0, 160))
def test_no_choice_within_the_bytes_costs_less(layers, limit):
    choices = allocation.front(layers)
    every = [*all_choices(layers)]
    assert {*choices} <= {*every}
    found = allocation.within(choices, limit)
    fitting = [one for one in every if one.bytes <= limit]
    if not fitting:
        assert found is None
    else:
        assert found.bytes <= limit
        assert found.cost == min(one.cost for one in fitting)
    assert choices[0].bytes == min(one.bytes for one in every)
    assert choices[-1].cost == min(one.cost for one in every)


@given(LAYERS)
def test_along_the_front_more_bytes_cost_less(layers):
    choices = allocation.front(layers)
    for a, b in itertools.pairwise(choices):
        assert a.bytes < b.bytes and a.cost > b.cost


def pairs(rng):
    return rng.integers(1, 10**6, (40, 2)).tolist()


def test_a_front_of_too_many_is_thinned_and_stays_close(monkeypatch):
    rng = np.random.default_rng(0)
    layers = [
        [Option(size, float(cost)) for size, cost in pairs(rng)] for _ in range(7)
    ]
    exact = allocation.front(layers)
    monkeypatch.setattr(allocation, "MOST", 8)
    thin = allocation.front(layers)
    assert len(thin) <= 8 + 1 < len(exact)
    assert thin[0] == exact[0] and thin[-1].cost == exact[-1].cost
    coarse = (exact[-1].bytes - exact[0].bytes) // 2
    for limit in range(exact[0].bytes + coarse, exact[-1].bytes, 10**5):
        # Not the best, but at least what was best of a few bytes less.
        near = allocation.within(thin, limit).cost
        assert near >= allocation.within(exact, limit).cost
        assert near <= allocation.within(exact, limit - coarse).cost
