"""The knapsack against brute force, what is packed against files, and the verdicts."""

import itertools
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import budget as config_file
from experiments import allocation, budget, recipe
from experiments.allocation import Choice, Option
from lib import errors, models, tree
from lib.deploy import artifact

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


def config_of(**changes):
    config = config_file.get_config("smoke")
    config.budget.update(changes)
    return config


@pytest.mark.slow
def test_what_layers_take_adds_up_to_the_file(tmp_path):
    config = config_of()
    module = recipe.build_model(config.dense.model, 10)
    params, _ = models.init(module, jax.random.key(0), (8, 8, 1))
    params = jax.tree.map(np.asarray, params)
    flat = tree.flatten(params)
    paths = [p for p in flat if "kernel" in p]
    dense = artifact.save(tmp_path / "dense.pare", {"params": params})
    listed = {r.path: r.nbytes for r in artifact.listing(tmp_path / "dense.pare")}
    overhead = dense - sum(listed[f"params/{p}"] for p in paths)
    tried = budget._tried(config)
    for taken in ([(0.5, 2), (0.0, 8)], [(0.9, 4), (0.5, 3)]):
        pairs = dict(zip(paths, taken, strict=True))
        now = budget.with_rules(config, "small_0", pairs)
        now.prune.schedule = ""
        chain = recipe.build_chain(now, now.small_0).transform
        frozen = chain.freeze(*chain.encode(params))
        size = artifact.save(tmp_path / "small.pare", {"params": frozen})
        sum_of = overhead + sum(
            budget._bytes(tried, path, flat[path], *pair)
            for path, pair in pairs.items()
        )
        assert abs(sum_of - size) < 60  # names in the header are deflated together


def test_every_layer_gets_its_own_rules():
    pairs = {"a/kernel": (0.5, 2), "b.c/kernel": (0.0, 8)}
    now = budget.with_rules(config_of(), "small_0", pairs)
    assert now.stages == ("dense", "small_0") and now.small_0.start == "dense"
    assert now.prune.rules == (("^a/kernel$", 0.5), (r"^b\.c/kernel$", 0.0))
    assert [bits for _, bits in now.quantize.rules] == [2, 8]
    assert re.search(now.quantize.rules[1][0], "b.c/kernel")


def attempt(size, points):
    return {"stage": "x", "bytes": size, "points": points}


def told(tried, smallest=100, limit=1000, most=1.0):
    settings = {"bytes": limit, "points": most}
    config = config_of(**settings)
    chosen = budget.best(tried, config.budget)
    return budget.verdict(
        {
            "config": {"budget": settings},
            "tried": tried,
            "chosen": chosen,
            "smallest": smallest,
            "met": budget.meets(tried[chosen], config.budget),
        }
    )


def test_a_budget_is_met_or_the_nearest_point_is_told():
    met = told([attempt(1000, 1.0)])
    assert met.startswith("met: 1,000 bytes, 1.00 points lost in validation")
    over = told([attempt(990, 3.0), attempt(1500, 0.5), attempt(2200, -0.2)])
    assert over.startswith("not met, at most 1,000 bytes and 1 points: ")
    assert "the best of what fits has 3.00 points lost" in over
    assert "the nearest point is 1,500 bytes, 0.50 points lost" in over
    none = told([attempt(1200, 5.0), attempt(1800, 4.0)], smallest=1190)
    assert "even the smallest choice takes about 1,190 bytes" in none
    assert "the nearest point is 1,800 bytes, 4.00 points lost" in none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes": 0}, "expected bytes and attempts from 1"),
        ({"growth": 1.0}, "budget.growth is above 1"),
        ({"stage": "smal"}, "unknown stage of a budget 'smal'"),
        ({"stage": "dense"}, "starts from 'dense' with transforms"),
        ({"sensitivity": {"strengths": {"bits": (1,)}}}, "from 2 to 8, got 1"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_compute(changes, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        budget.run(config_of(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()
