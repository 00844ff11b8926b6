"""Branches that can be dropped: which they are, and that nothing else is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, program, shrink, tree
from tests.shrink import models
from tests.shrink.cuts import close, cut_by, half, masked_by

# name -> branches of each model, in program order
NAMES = {
    "mlp": [],
    "cnn": ["BatchNorm_1"],
    "resnet20": [f"block_{s}_{b}" for s in range(3) for b in range(3)],
    # Where the shortcut projects, both sides have weights of their own.
    "wide_resnet": ["BatchNorm_2", "BatchNorm_6"],
    "mobilenet_v2": ["BatchNorm_6"],
    "densenet": [],
    "unet": [],
    "layer_scale": ["Conv_1", "Conv_2"],
    "vit": ["LayerNorm_0", "Dense_0", "LayerNorm_2", "Dense_2"],
    "fused_qkv": ["Dense_0", "Dense_2", "Dense_4", "Dense_6"],
    "bert": ["k_0", "down_0", "k_1", "down_1"],
    "lstm": [],
    "tied": ["Dense_0"],
    "scan": [],  # all turns of a loop have one program
    "glu": ["Dense_1", "Dense_3"],
}
# Leaves of some branches: all that nothing else reads, running statistics too.
LEAVES = {
    ("resnet20", "block_1_0"): {
        *(f"params/block_1_0/conv_{i}/kernel" for i in (0, 1)),
        *(f"params/block_1_0/norm_{i}/{n}" for i in (0, 1) for n in ("bias", "scale")),
        *(
            f"variables/batch_stats/block_1_0/norm_{i}/{n}"
            for i in (0, 1)
            for n in ("mean", "var")
        ),
    },
    ("vit", "Dense_0"): {
        *(f"params/Dense_{i}/{n}" for i in (0, 1) for n in ("bias", "kernel")),
        *(f"params/LayerNorm_1/{n}" for n in ("bias", "scale")),
    },
    ("bert", "down_0"): {
        *(
            f"params/{name}_0/{n}"
            for name in ("up", "down")
            for n in ("bias", "kernel")
        ),
    },
}


@functools.cache
def found(name):
    case = models.make(name)
    return case, shrink.branches(case.f)(case.weights, case.x)


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    _, branches = found(name)
    assert [b.name for b in branches] == NAMES[name]
    for branch in branches:
        if (name, branch.name) in LEAVES:
            assert set(branch.leaves) == LEAVES[name, branch.name]
    leaves = [leaf for branch in branches for leaf in branch.leaves]
    assert len(leaves) == len(set(leaves))


_DROPPED = ("tied", "glu", "bert", "vit", "resnet20")


@pytest.mark.parametrize(
    "name",
    [_DROPPED[0], *(pytest.param(n, marks=pytest.mark.slow) for n in _DROPPED[1:])],
)
def test_the_small_program_is_that_of_zeros(name):
    """One branch dropped, then all; then channels of what is left besides."""
    case, branches = found(name)
    before = program.sites(case.f)(case.weights, case.x)
    for chosen in (branches[-1:], branches):
        plan = shrink.drop(chosen, case.weights)
        small = shrink.cut(plan, case.weights)  # (Leaves go; none is sliced.)
        gone = {leaf for branch in chosen for leaf in branch.leaves}
        assert set(tree.flatten(small)) == set(tree.flatten(case.weights)) - gone
        f = shrink.resize(case.f, plan)
        sites = program.sites(f)(small, case.x)
        left = [s.name for s in sites]
        assert set(left) < {s.name for s in before}
        assert sum(s.macs for s in sites) < sum(s.macs for s in before)
        large = jax.jit(case.f)(shrink.mask(plan, case.weights), case.x)
        np.testing.assert_array_equal(jax.jit(f)(small, case.x), large)
    groups = shrink.groups(f)(small, case.x)
    assert groups.groups and not groups.missed
    more = shrink.make(groups, half(groups))
    both = shrink.compose(plan, more)
    y = jax.jit(shrink.resize(case.f, both))(cut_by(more, small), case.x)
    masked = masked_by(more, small)
    close(y, jax.jit(f)(masked, case.x))


# --- Small functions


W = {
    name: jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)
    for i, (name, shape) in enumerate(
        {"a": (4, 6), "b": (6, 4), "c": (4, 4), "v": (4,), "d": (4, 4)}.items()
    )
}
X = jnp.asarray(np.random.default_rng(9).normal(size=(3, 4)), jnp.float32)


def dense(w, x):
    return jax.nn.relu(x @ w["a"]) @ w["b"]


def plain(w, x):
    return x + dense(w, x)


def other_way_round(w, x):
    return dense(w, x) + x


def biased(w, x):
    return x + (dense(w, x) + w["v"][None])


def scaled(w, x):
    return x + jnp.tanh(dense(w, x)) * w["v"][None]


def two_after_another(w, x):
    x = x + x @ w["c"]
    return x + dense(w, x)


def outer_and_inner(w, x):
    """The inner branch is around a layer of the outer one."""
    h = x @ w["c"]
    return x + (h + dense(w, h)) @ w["d"]


def shifted(w, x):
    return x + (dense(w, x) + 1.0)


def exponential(w, x):
    return x + jnp.exp(dense(w, x))


def two_towers(w, x):
    return x @ w["c"] + x @ w["d"]


def of_the_weights_alone(w, x):
    return x @ (w["c"] + w["d"] @ w["c"])


@pytest.mark.parametrize(
    ("f", "leaves"),
    [
        (plain, [{"a", "b"}]),
        (other_way_round, [{"a", "b"}]),
        (biased, [{"a", "b", "v"}]),
        (scaled, [{"a", "b", "v"}]),
        (two_after_another, [{"c"}, {"a", "b"}]),
        (outer_and_inner, [{"a", "b"}, {"a", "b", "c", "d"}]),
        (shifted, []),
        (exponential, []),
        (two_towers, []),
        (of_the_weights_alone, []),
    ],
)
def test_small_functions(f, leaves):
    branches = shrink.branches(f)(W, X)
    assert [set(b.leaves) for b in branches] == leaves
    for branch in branches:
        plan = shrink.drop([branch], W)
        small = shrink.resize(f, plan)(shrink.cut(plan, W), X)
        np.testing.assert_array_equal(small, f(shrink.mask(plan, W), X))


def test_a_leaf_that_is_read_elsewhere_is_no_branchs_own():
    def f(w, x):
        return (x + dense(w, x)) * w["b"].sum()

    (branch,) = shrink.branches(f)(W, X)
    assert branch.leaves == ("a",)  # relu(0) @ b is 0 all the same

    def g(w, x):
        return (x + dense(w, x)) * w["b"].sum() * w["a"].sum()

    assert shrink.branches(g)(W, X) == []


def test_a_second_branch_of_what_the_first_left():
    plan = shrink.drop(shrink.branches(two_after_another)(W, X)[:1], W)
    small, f = shrink.cut(plan, W), shrink.resize(two_after_another, plan)
    (second,) = shrink.branches(f)(small, X)
    assert second.leaves == ("a", "b")
    grads = jax.grad(lambda w: (f(w, X) ** 2).sum())(small)
    large = jax.grad(lambda w: (two_after_another(w, X) ** 2).sum())(
        shrink.mask(plan, W)
    )
    close(grads, shrink.cut(plan, large))
    both = shrink.compose(plan, shrink.drop([second], small))
    np.testing.assert_array_equal(
        shrink.resize(two_after_another, both)(shrink.cut(both, W), X), X
    )


def test_a_branch_of_other_weights():
    branch = shrink.Branch("block", ("a", "missing"))
    with pytest.raises(errors.UserError, match="unknown leaf 'missing'"):
        shrink.drop([branch], W)


def test_branches_beside_one_another_are_listed_each():
    def f(w, x):
        first, second = (jnp.tanh(x @ w[k]["kernel"]) for k in ("first", "second"))
        return (x + first + second) @ w["out"]["kernel"]

    weights = {k: {"kernel": jnp.ones((3, 3))} for k in ("first", "second", "out")}
    x = jnp.ones((2, 3))
    leaves = [b.leaves for b in shrink.branches(f)(weights, x)]
    assert leaves == [("first/kernel",), ("second/kernel",)]
    plan = shrink.drop(shrink.branches(f)(weights, x)[1:], weights)
    assert shrink.difference(f, plan, weights, [(x,)])[0] == 0
