"""Plans: written, read, composed, and what they do to weights and optimisers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import errors, shrink, tree
from lib.shrink import Cut, Plan

X = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)


def f(w, x):
    h = jax.nn.relu(x @ w["a"] + w["a_bias"][None])
    h = jnp.tanh(h @ w["b"] + w["b_bias"][None])
    return h @ w["c"]


def weights(a, b):
    rng = np.random.default_rng(0)
    shapes = {"a": (4, a), "a_bias": (a,), "b": (a, b), "b_bias": (b,), "c": (b, 2)}
    return {k: jnp.float32(rng.normal(size=n)) for k, n in shapes.items()}


W = weights(6, 5)
GROUPS = shrink.groups(f)(W, X)
PLAN = shrink.make(GROUPS, {"a": [1, 4, 5], "b": [0]})


def shapes(w):
    return {path: leaf.shape for path, leaf in tree.flatten(w).items()}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# --- Written and read


def test_a_plan_in_json_by_hand():
    plan = shrink.make(GROUPS, {"b": [0, 3]})
    assert plan.plain() == {
        "cuts": [
            {
                "of": 5,
                "keep": "68",  # 01101, and three bits more
                "axes": [["b", 1], ["b_bias", 0], ["c", 0]],
            }
        ],
        "dropped": {},
    }


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=20), max_size=3))
def test_json_gives_back_the_plan(masks):
    cuts = [
        Cut(np.array(mask), ((f"{i}/kernel", 0), (f"{i}/bias", i)))
        for i, mask in enumerate(masks)
    ]
    plan = Plan(tuple(cuts), {"d/kernel": ((3, 4), "float32"), "e": ((), "bfloat16")})
    again = shrink.from_plain(json.loads(json.dumps(plan.plain())))
    assert again.dropped == plan.dropped
    for new, old in zip(again.cuts, plan.cuts, strict=True):
        assert new.axes == old.axes and new.keep.dtype == bool
        np.testing.assert_array_equal(new.keep, old.keep)


_GOOD = {"of": 9, "keep": "ff80", "axes": [["a", 0]]}


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"cuts": []},
        {"cuts": [{"of": 9}], "dropped": {}},
        {"cuts": [_GOOD | {"keep": "xy"}], "dropped": {}},
        {"cuts": [_GOOD | {"keep": "ff"}], "dropped": {}},  # fewer bits than positions
        {"cuts": [_GOOD | {"axes": [["a"]]}], "dropped": {}},
        {"cuts": [], "dropped": {"a": [[2, 3], "float33"]}},
        {"cuts": [], "dropped": {"a": "float32"}},
        [],
    ],
)
def test_what_is_no_plan(plain):
    with pytest.raises(errors.UserError, match="no plan"):
        shrink.from_plain(plain)


# --- Weights


def test_cut_mask_and_full():
    a, b = np.array([0, 2, 3]), np.arange(1, 5)  # what is kept
    small, masked = shrink.cut(PLAN, W), shrink.mask(PLAN, W)
    np.testing.assert_array_equal(small["a"], W["a"][:, a])
    np.testing.assert_array_equal(small["b"], W["b"][a][:, b])
    np.testing.assert_array_equal(small["c"], W["c"][b])
    assert shapes(masked) == shapes(W)
    zeros = np.ones((6, 5), bool)
    zeros[np.ix_(a, b)] = False
    np.testing.assert_array_equal(masked["b"] == 0, zeros)
    equal(shrink.cut(PLAN, masked), small)
    assert shapes(shrink.full(PLAN, small)) == shapes(W)
    assert small["a_bias"].dtype == W["a_bias"].dtype


def test_leaves_that_are_dropped():
    w = {"params": {"a": {"kernel": W["a"], "bias": W["a_bias"]}, "c": W["c"]}}
    plan = Plan(
        (Cut(np.arange(5) > 2, (("params/c", 0),)),),
        {"params/a/bias": ((6,), "float32"), "params/a/kernel": ((4, 6), "float32")},
    )
    small, masked = shrink.cut(plan, w), shrink.mask(plan, w)
    assert small["params"]["a"] == {}  # the module is still there
    assert shapes(small) == {"params/c": (2, 2)}
    assert not masked["params"]["a"]["kernel"].any() and shapes(masked) == shapes(w)
    whole = shrink.full(plan, small)
    assert shapes(whole) == shapes(w)
    assert whole["params"]["a"]["bias"].dtype == jnp.float32


def _without(plan, path):
    cuts = [Cut(c.keep, tuple(p for p in c.axes if p[0] != path)) for c in plan.cuts]
    return Plan(tuple(cuts))


OUTPUT = Plan((Cut(np.array([True, False]), (("c", 1),)),))
INPUT = Plan((Cut(np.array([True, True, True, False]), (("a", 0),)),))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: shrink.make(GROUPS, {"aa": [0]}), "aa.*did you mean 'a'"),
        (lambda: shrink.make(GROUPS, {"a": [0, 6]}), "'a' has units 0 to 5"),
        (lambda: shrink.make(GROUPS, {"a": [-1]}), "'a' has units 0 to 5"),
        (lambda: shrink.make(GROUPS, {"a": range(6)}), "all 6 units of group 'a'"),
        (lambda: shrink.cut(PLAN, weights(7, 5)), r"length 6, got .* shape \(.*7"),
        (lambda: shrink.mask(PLAN, {"a": W["a"], "a_bias": W["a_bias"]}), "'b'.*lack"),
        (lambda: shrink.full(PLAN, W), "leaves 3 of 6 along axis"),
        (
            lambda: shrink.full(PLAN, {"a": W["a"]}),
            "'a_bias', which these weights lack",
        ),
        (
            lambda: shrink.resize(f, _without(PLAN, "a_bias"))(
                shrink.cut(_without(PLAN, "a_bias"), W), X
            ),
            "position 1 along axis . of '.*' cannot be removed as the plan says: "
            "something else that stays depends on it",
        ),
        (
            lambda: shrink.resize(f, INPUT)(shrink.cut(INPUT, W), X),
            "position 3 along axis 0 of 'a' cannot be removed as the plan says: "
            "it follows the inputs of the program",
        ),
    ],
)
def test_mistakes_in_one_line(call, why):
    with pytest.raises(errors.UserError, match=why) as e:
        call()
    assert "\n" not in str(e.value)


# --- Two plans


@st.composite
def _two_plans(draw):
    """Two random plans, the second of what the first leaves, of leaves of any shape."""

    def plan(shapes):
        cuts = []
        for path, shape in shapes.items():
            for axis, n in enumerate(shape):
                mask = draw(st.lists(st.booleans(), min_size=n, max_size=n))
                if draw(st.booleans()) and any(mask):
                    cuts.append(Cut(np.array(mask), ((path, axis),)))
        dropped = draw(st.sets(st.sampled_from(sorted(shapes)), max_size=1))
        kept = [c for c in cuts if c.axes[0][0] not in dropped]
        return Plan(tuple(kept), {p: (tuple(shapes[p]), "float32") for p in dropped})

    whole = {"a/x": (4, 3), "b": (5,), "c/d/e": (2, 1, 6)}
    first = plan(whole)
    left = {
        path: [
            int(first.axes().get(path, {}).get(axis, np.ones(n)).sum())
            for axis, n in enumerate(shape)
        ]
        for path, shape in whole.items()
        if path not in first.dropped
    }
    return whole, first, plan(left)


@settings(max_examples=10)
@given(_two_plans())
def test_compose_is_one_cut_after_the_other(drawn):
    whole, first, second = drawn
    rng = np.random.default_rng(0)
    w = {path: rng.normal(size=n).astype(np.float32) for path, n in whole.items()}
    w = tree.unflatten(w)
    both = shrink.compose(first, second)
    equal(shrink.cut(both, w), shrink.cut(second, shrink.cut(first, w)))
    assert shapes(shrink.full(both, shrink.cut(both, w))) == whole
    places = [place for cut in both.cuts for place in cut.axes]
    assert len(places) == len(set(places))


# --- Optimisers


def _clipped():
    schedule = optax.linear_schedule(0.1, 0.01, 3)
    return optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(schedule, weight_decay=0.1)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adam(0.1),
        lambda: optax.sgd(1e-3, momentum=0.9, nesterov=True),
        _clipped,
    ],
)
def test_the_optimiser_goes_on(make):
    """Steps of the small model with the cut state are the masked model's steps, cut."""
    tx, masked = make(), shrink.mask(PLAN, W)
    small = shrink.resize(f, PLAN)

    def step(f, w, state):
        grads = jax.grad(lambda w: (f(w, X) ** 2).sum())(w)
        updates, state = tx.update(grads, state, w)
        return optax.apply_updates(w, updates), state

    large, less = (jax.jit(functools.partial(step, g)) for g in (f, small))
    masked, state = large(masked, tx.init(masked))
    w, cut_state = shrink.cut(PLAN, masked), shrink.cut_state(PLAN, masked, state)
    moments = [x for x in jax.tree.leaves(cut_state) if np.ndim(x)]
    assert moments and len(moments) % 5 == 0
    for i, leaf in enumerate(moments):
        assert leaf.shape == jax.tree.leaves(w)[i % 5].shape
    for _ in range(2):
        masked, state = large(masked, state)
        w, cut_state = less(w, cut_state)
    wanted = (shrink.cut(PLAN, masked), shrink.cut_state(PLAN, masked, state))
    assert jax.tree.structure((w, cut_state)) == jax.tree.structure(wanted)
    for a, b in zip(
        jax.tree.leaves((w, cut_state)), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_state_of_one_subtree():
    """The optimiser's own paths begin below `root`; other leaves are let alone."""
    tx = optax.adam(0.1)
    plan = Plan(
        tuple(
            Cut(c.keep, tuple((f"params/{path}", axis) for path, axis in c.axes))
            for c in PLAN.cuts
        )
    )
    state = tx.init(W)
    found = shrink.cut_state(plan, {"params": W, "variables": {}}, state, root="params")
    equal(found[0].mu, shrink.cut(PLAN, state[0].mu))
    assert found[0].count is state[0].count


def test_the_state_of_what_is_dropped_cannot_be_cut():
    plan = Plan((), {"a_bias": ((6,), "float32")})
    with pytest.raises(errors.UserError, match="'a_bias' is dropped"):
        shrink.cut_state(plan, W, optax.adam(0.1).init(W))
