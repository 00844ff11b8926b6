"""Which units go: tables by hand, and the budget that is met but just."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors, shrink
from lib.shrink import Limits


def f(w, x):
    h = jax.nn.relu(x @ w["a"])
    h = jax.nn.relu(h @ w["b"])
    return jax.nn.relu(h @ w["c"]) @ w["d"]


SIZES = {"a": 8, "b": 5, "c": 4}
W = {
    name: jnp.ones(shape)
    for name, shape in {"a": (3, 8), "b": (8, 5), "c": (5, 4), "d": (4, 2)}.items()
}
GROUPS = shrink.groups(f)(W, jnp.ones((2, 3)))
SCORES = {
    "a": np.array([8, 7, 6, 5, 4, 3, 2, 1.0]),
    "b": np.array([5, 0.5, 5, 0.5, 5]),
    "c": np.array([10, 20, 30, 2.5]),
}


def chosen(rules, **settings):
    found = shrink.by_fraction(GROUPS, SCORES, rules, **settings)
    return {name: units.tolist() for name, units in found.items()}


def test_the_groups():
    assert {g.name: g.size for g in GROUPS.groups} == SIZES


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        # A share of each group, rounded up; the least go, the first of equals.
        ([(".", 0.0)], {}),
        ([(".", 0.25)], {"a": [6, 7], "b": [1, 3], "c": [3]}),
        # Whole numbers count units; one is always left.
        ([("a", 3), (".", 1.0)], {"a": [5, 6, 7], "b": [1], "c": [3]}),
        ([("c", 9)], {"c": [0, 1, 3]}),
        ([(".", 0.26)], {"a": [5, 6, 7], "b": [1, 3], "c": [0, 3]}),
        ([(".", 0.6)], {"a": [3, 4, 5, 6, 7], "b": [0, 1, 3], "c": [0, 1, 3]}),
        # One of each is left.
        ([(".", 0.99)], {"a": [*range(1, 8)], "b": [0, 1, 2, 3], "c": [0, 1, 3]}),
        # So many units of each.
        ([(".", 1)], {"a": [7], "b": [1], "c": [3]}),
        ([("[ab]", 3.0)], {"a": [5, 6, 7], "b": [0, 1, 3]}),
        ([("b", 9)], {"b": [0, 1, 2, 3]}),
        # The first rule that matches wins; what none matches is kept.
        ([("a", 0.125), (".", 0.5)], {"a": [7], "b": [0, 1, 3], "c": [0, 3]}),
        ([("a|b", 0.0), ("[bc]", 0.5)], {"c": [0, 3]}),
        ([("^c$", 0.5)], {"c": [0, 3]}),
    ],
)
def test_by_group(rules, wanted):
    assert chosen(rules) == wanted


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([(".", 0.0)], {}),
        # Of 17, ceil(1.7): the two of score 0.5.
        ([(".", 0.1)], {"b": [1, 3]}),
        # Of 17, 4: 0.5, 0.5, 1, 2.
        ([(".", 4 / 17)], {"a": [6, 7], "b": [1, 3]}),
        # And 2.5, 3, 4; then 5s, first a's, then b's.
        ([(".", 8 / 17)], {"a": [3, 4, 5, 6, 7], "b": [1, 3], "c": [3]}),
        # Each rule has a pool of its own.
        ([("b", 0.2), ("a|c", 0.5)], {"b": [1], "a": [3, 4, 5, 6, 7], "c": [3]}),
        # A unit of each group stays, however little it is worth.
        ([(".", 16 / 17)], {"a": [*range(1, 8)], "b": [0, 1, 2, 3], "c": [0, 1, 3]}),
    ],
)
def test_all_together(rules, wanted):
    assert chosen(rules, scope="global") == wanted


@pytest.mark.parametrize(
    ("limits", "fraction", "left"),
    [
        (Limits(), 0.5, (4, 2, 2)),
        (Limits(multiple=2), 0.5, (4, 2, 2)),
        (Limits(multiple=3), 0.5, (6, 3, 3)),
        (Limits(multiple=4), 0.5, (4, 4, 4)),
        (Limits(multiple=8), 0.5, (8, 5, 4)),  # or all, where there are fewer
        (Limits(floor=3), 0.9, (3, 3, 3)),
        (Limits(floor=6), 0.9, (6, 5, 4)),
        (Limits(multiple=2, floor=3), 0.9, (4, 4, 4)),
    ],
)
@pytest.mark.parametrize("scope", shrink.SCOPES)
def test_limits(limits, fraction, left, scope):
    found = chosen([(".", fraction)], limits=limits, scope=scope)
    kept = {name: n - len(found.get(name, ())) for name, n in SIZES.items()}
    if scope == "group":
        assert tuple(kept.values()) == left
    for name, n in kept.items():
        assert n == SIZES[name] or n % limits.multiple == 0
        assert n >= min(limits.floor, SIZES[name])
        order = np.argsort(SCORES[name], kind="stable")
        assert found.get(name, []) == sorted(order[: SIZES[name] - n].tolist())


@pytest.mark.parametrize(
    ("rules", "settings", "why"),
    [
        ([("a", 0.5), ("dense", 0.5)], {}, "dense"),
        ([(".", 0.5), ("a", 0.2)], {}, "'a'"),  # the first took all that it would
        ([(".", 1.5)], {}, r"in \[0, 1\), or by group .*, got 1.5"),
        ([(".", 1)], {"scope": "global"}, "got 1"),
        ([(".", -0.1)], {}, "got -0.1"),
        ([(".", 0.1)], {"scope": "globall"}, "did you mean 'global'"),
        ([(".", 0.1)], {"limits": Limits(multiple=0)}, "at least 1, got 0, 1"),
        ([(".", 0.1)], {"limits": Limits(floor=0)}, "at least 1, got 1, 0"),
        ([("(", 0.1)], {}, "no regular expression"),
    ],
)
def test_mistakes(rules, settings, why):
    with pytest.raises(errors.UserError, match=why):
        chosen(rules, **settings)


def test_a_program_of_which_nothing_can_go():
    groups = shrink.groups(lambda w, x: x @ w["a"])(
        {"a": jnp.ones((3, 2))}, jnp.ones(3)
    )
    with pytest.raises(errors.UserError, match="nothing of this program"):
        shrink.by_fraction(groups, {}, [(".", 0.5)])


# --- What is left to compute


def by_hand(removed):
    """Multiply-accumulates of two rows through the four layers."""
    a, b, c = (n - len(removed.get(name, ())) for name, n in SIZES.items())
    return 2 * (3 * a + a * b + b * c + c * 2)


@given(st.tuples(*(st.sets(st.integers(0, n - 1)) for n in SIZES.values())))
def test_macs(drawn):
    removed = {name: sorted(d) for name, d in zip(SIZES, drawn, strict=True)}
    assert shrink.macs(GROUPS, removed) == by_hand(removed)


@pytest.mark.parametrize("scope", shrink.SCOPES)
@pytest.mark.parametrize("share", [0.999, 0.7, 0.5, 0.2, 0.09])
def test_a_budget_is_met_by_the_least_fraction(share, scope):
    asked = []

    def choose(fraction):
        asked.append(fraction)
        return shrink.by_fraction(GROUPS, SCORES, [(".", fraction)], scope=scope)

    def cost(removed):
        return shrink.macs(GROUPS, removed)

    budget = share * cost({})
    found = shrink.to_budget(choose, cost, budget)
    assert cost(found) <= budget
    # The least fraction that would do, among all at which the choice can change.
    steps = [*(k / n + 1e-9 for n in (17, 8, 5, 4) for k in range(n)), 1 - 1e-6]
    within = [s for s in sorted(steps) if cost(choose(s)) <= budget]
    assert cost(found) == cost(choose(within[0]))
    assert cost(choose(max(within[0] - 1e-5, 0))) > budget
    assert len(asked) < 150


def test_a_budget_that_needs_nothing_or_cannot_be_met():
    def choose(fraction):
        return shrink.by_fraction(GROUPS, SCORES, [(".", fraction)])

    def cost(removed):
        return shrink.macs(GROUPS, removed)

    assert shrink.to_budget(choose, cost, cost({})) == {}
    least = by_hand({name: range(n - 1) for name, n in SIZES.items()})
    assert cost(shrink.to_budget(choose, cost, least)) == least
    with pytest.raises(errors.UserError, match=f"cannot be met.* costs {least}"):
        shrink.to_budget(choose, cost, least - 1)


def test_limits_of_a_group():
    group = GROUPS.groups[0]
    for removed in range(9):
        kept = [Limits(multiple=m).kept(group, removed) for m in (1, 3, 8)]
        left = max(8 - removed, 1)
        assert kept == [left, min(8, 3 * math.ceil(left / 3)), 8]
