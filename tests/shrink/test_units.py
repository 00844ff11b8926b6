"""Units: what is removed together, against brute force over all removals."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib.shrink.units import PINNED, Units


def removed(units, axis, *gone):
    """Returns which positions go with these classes."""
    marks = units.marks()
    marks[list(gone)] = True
    return units.removed(np.asarray(axis), marks).tolist()


def one(units):
    (unit,) = units.fresh(1)
    return int(unit)


def axis(*units):
    return np.array(units)


# --- By hand


def test_fresh_units_are_alone_and_join_to_the_least():
    units = Units()
    a, b = units.fresh(4), units.fresh(4)
    assert a.tolist() == [1, 2, 3, 4] and b.tolist() == [5, 6, 7, 8]
    units.join(a, b[::-1], "they are added")
    assert units.find(b).tolist() == [4, 3, 2, 1]
    units.join(a[:2], a[2:], "halves are multiplied")
    assert units.find(b).tolist() == [2, 1, 2, 1]
    assert [units.family(int(u)) for u in (*a, *b)] == [1] * 8
    assert units.bases(b) == [(2,), (1,), (2,), (1,)]
    assert removed(units, b, 1) == [False, True, False, True]


def test_more_units_than_the_arrays_began_with():
    units = Units()
    a = units.fresh(3000)
    units.join(a[:-1], a[1:], "neighbours")
    assert (units.find(a) == a[0]).all() and len(units.marks()) == 3001


def test_pins_keep_the_first_reason_and_follow_joins():
    units = Units()
    a, b = units.fresh(3), units.fresh(3)
    assert units.is_pinned(axis(PINNED)).all()
    units.pin(a[:1], "first")
    units.pin(a[:2], "second")
    units.join(a, b, "joined")
    assert units.is_pinned(b).tolist() == [True, True, False]
    assert [units.why([u]) for u in b] == ["first", "second", ""]
    assert units.why(reversed(b)) == "second"
    assert units.settled(b).tolist() == [PINNED, PINNED, a[2]]
    assert units.why([PINNED]) == "it follows the inputs of the program"


def test_what_is_joined_with_something_pinned_takes_its_reason():
    units = Units()
    a, b = one(units), one(units)
    units.pin(axis(b), "it is an output")
    units.join(axis(a), axis(b), "joined")
    assert units.why([a]) == "it is an output" and units.base(a) == ()


def test_a_product_goes_with_any_part():
    units = Units()
    heads, size = units.fresh(2), units.fresh(3)
    merged = units.product(heads, size)
    assert removed(units, merged, heads[1]) == [False] * 3 + [True] * 3
    assert removed(units, merged, size[0]) == [True, False, False] * 2
    assert removed(units, merged) == [False] * 6
    np.testing.assert_array_equal(units.product(heads, size), merged)


def test_a_product_is_pinned_where_all_of_its_parts_are():
    units = Units()
    heads, size = units.fresh(2), units.fresh(2)
    merged = units.product(heads, size)
    units.pin(heads, "heads")
    assert not units.is_pinned(merged).any()
    units.pin(size[:1], "size")
    assert units.is_pinned(merged).tolist() == [True, False, True, False]
    assert units.why(merged[:1]) == "heads"
    assert units.bases(merged) == [(), (size[1],), (), (size[1],)]


def test_a_pinned_product_pins_its_parts():
    units = Units()
    heads, size = units.fresh(2), units.fresh(2)
    units.pin(units.product(heads, size)[:1], "one position is needed")
    assert units.is_pinned(heads).tolist() == [True, False]
    assert units.is_pinned(size).tolist() == [True, False]
    assert units.why([heads[0]]) == "one position is needed"


def test_products_with_what_is_pinned_are_the_other_part():
    units = Units()
    a, places = units.fresh(3), np.zeros(2, np.int64)
    assert units.product(places, a).tolist() == [*a, *a]
    assert units.product(a, places).tolist() == np.repeat(a, 2).tolist()
    assert units.product(places, places).tolist() == [PINNED] * 4
    assert units.product(a[:1], a[:1]).tolist() == [a[0]]  # of itself


def test_split_gives_back_what_was_merged():
    units = Units()
    a, b, c = units.fresh(2), units.fresh(3), units.fresh(4)
    merged = units.product(units.product(a, b), c)
    first, rest = units.split(merged, 2, 12)
    np.testing.assert_array_equal(units.find(first), a)
    second, third = units.split(rest, 3, 4)
    np.testing.assert_array_equal(units.find(second), b)
    np.testing.assert_array_equal(units.find(third), c)
    # Or with the first two left merged.
    both, third = units.split(merged, 6, 4)
    np.testing.assert_array_equal(units.find(third), c)
    np.testing.assert_array_equal(both, units.product(a, b))


def test_split_of_units_of_their_own_makes_them_products():
    units = Units()
    whole = units.fresh(6)
    heads, size = units.split(whole, 2, 3)
    assert removed(units, whole, heads[0]) == [True] * 3 + [False] * 3
    assert removed(units, whole, size[2]) == [False, False, True] * 2
    both = units.find(units.product(heads, size))
    np.testing.assert_array_equal(both, units.find(whole))
    for new, old in zip(units.split(whole, 2, 3), (heads, size), strict=True):
        np.testing.assert_array_equal(new, old)


def test_split_along_rows_or_columns_that_are_alike_makes_nothing_new():
    units = Units()
    a = units.fresh(3)
    outer, inner = units.split(np.repeat(a, 2), 3, 2)
    assert outer.tolist() == a.tolist() and inner.tolist() == [PINNED] * 2
    outer, inner = units.split(np.tile(a, 2), 2, 3)
    assert outer.tolist() == [PINNED] * 2 and inner.tolist() == a.tolist()


def test_split_of_products_that_do_not_align_pins():
    units = Units()
    a, b = units.fresh(2), units.fresh(2)
    mixed = np.concatenate([units.product(a[:1], b), a])  # of two parts, and of one
    units.split(mixed, 2, 2)
    assert units.is_pinned(np.concatenate([a, b])).all()
    assert units.why(a) == "it is split into axes that it was not made of"


def test_products_joined_with_products_join_part_by_part():
    units = Units()
    a, b, c, d = (one(units) for _ in range(4))
    (p,), (q,) = units.product(axis(a), axis(b)), units.product(axis(c), axis(d))
    units.join(axis(p), axis(q), "added")
    assert units.find(axis(a, b)).tolist() == units.find(axis(c, d)).tolist()
    assert units.find(axis(p)) == units.find(axis(q))
    # The same parts in another order are the same removal.
    (r,) = units.product(axis(b), axis(a))
    units.join(axis(p), axis(r), "added")
    assert not units.is_pinned(axis(a, b)).any()
    assert removed(units, axis(p, r), a) == [True, True]


def test_products_of_two_and_three_parts_that_are_joined_are_pinned():
    units = Units()
    parts = [one(units) for _ in range(5)]
    (p,) = units.product(axis(parts[0]), axis(parts[1]))
    (q,) = units.product(units.product(axis(parts[2]), axis(parts[3])), axis(parts[4]))
    units.join(axis(p), axis(q), "added")
    assert units.is_pinned(axis(*parts, p, q)).all() and units.why([p]) == "added"


def test_a_unit_joined_with_a_product_has_its_parts():
    units = Units()
    a, b, c, u = (one(units) for _ in range(4))
    (q,) = units.product(axis(u), axis(c))
    (p,) = units.product(axis(a), axis(b))
    units.join(axis(u), axis(p), "joined")
    assert units.bases(axis(u, q)) == [(a, b), (a, b, c)]
    assert removed(units, axis(p, u, q), c) == [False, False, True]


@pytest.mark.parametrize("deep", [False, True])
def test_a_unit_joined_with_a_product_that_contains_it_is_pinned(deep):
    units = Units()
    a, b = one(units), one(units)
    (p,) = units.product(axis(a), axis(b))
    if deep:
        (p,) = units.product(axis(p), axis(one(units)))
    units.join(axis(p), axis(a), "it would go with itself")
    assert units.is_pinned(axis(a, b, p)).all()
    assert units.why([b]) == "it would go with itself"


# --- By brute force

_UNIT = st.integers(0, 30)
_PROGRAMS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.lists(_UNIT, min_size=6, max_size=6)),
        st.tuples(st.just("pin"), st.lists(_UNIT, min_size=1, max_size=1)),
        st.tuples(st.just("merge"), st.lists(_UNIT, min_size=4, max_size=4)),
        st.tuples(st.just("split"), st.lists(_UNIT, min_size=4, max_size=4)),
    ),
    max_size=8,
)


def play(count, program):
    """Returns the units, all that there are, and facts (one, [others that remove it]).

    A fact says that the one is removed if and only if one of the others is.
    """
    units = Units()
    pool, facts = [int(u) for u in units.fresh(count)], []
    for what, numbers in program:
        some = [pool[i % len(pool)] for i in numbers]
        if what == "join":
            units.join(axis(*some[:3]), axis(*some[3:]), "joined")
            facts += [(some[i], [some[3 + i]]) for i in range(3)]
        elif what == "pin":
            units.pin(axis(*some), "pinned")
            facts.append((some[0], []))
        else:
            if what == "merge":
                left, right = some[:2], some[2:]
                merged = units.product(axis(*left), axis(*right)).tolist()
                pool += merged
            else:
                merged = some
                left, right = (x.tolist() for x in units.split(axis(*some), 2, 2))
                pool += left + right
            parts = itertools.product(left, right)
            facts += [(m, list(p)) for m, p in zip(merged, parts, strict=True)]
    return units, pool, facts


@given(st.integers(1, 5), _PROGRAMS)
@example(5, [("pin", [2]), ("join", [0, 1, 3, 1, 2, 4])])
def test_whatever_is_removed_every_fact_holds(count, program):
    units, pool, facts = play(count, program)
    live = sorted({b for u in pool for b in units.base(u)})
    for chosen in itertools.product([False, True], repeat=len(live)):
        gone = [b for b, x in zip(live, chosen, strict=True) if x]
        found = removed(units, pool, *gone)
        now = dict(zip(pool, found, strict=True))
        now[PINNED] = False
        for unit, others in facts:
            assert now[unit] == any(now[other] for other in others)
    for unit in pool:
        pinned = units.is_pinned(axis(unit))[0]
        assert pinned == (not units.base(unit))
        assert not pinned or units.why([unit])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    st.lists(st.integers(0, 9), max_size=2),
)
def test_without_products_classes_are_what_joins_connect(pairs, pins):
    units = Units()
    pool = units.fresh(10)
    for i in pins:
        units.pin(pool[[i]], f"{i}")
    left, right = (np.array([pool[p[k]] for p in pairs], int) for k in (0, 1))
    units.join(left, right, "joined")
    near = {i: {i} for i in range(10)}
    for _ in range(10):  # the closure, one step more each time
        for a, b in pairs:
            near[a] = near[b] = near[a] | near[b]
        for i in range(10):
            near[i] = set().union(*(near[j] for j in near[i]))
    assert units.find(pool).tolist() == [pool[min(near[i])] for i in range(10)]
    held = [bool(near[i] & set(pins)) for i in range(10)]
    assert units.is_pinned(pool).tolist() == held
