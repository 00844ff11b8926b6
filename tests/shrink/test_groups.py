"""Groups: what goes together, by literal tables and by what a gradient says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from lib import shrink, tree
from tests.shrink import models
from tests.shrink.tables import PARTS, TABLES


@functools.cache
def found(name):
    case = models.make(name)
    return shrink.groups(case.f)(case.weights, case.x)


def short(path):
    return path.removeprefix("params/").removeprefix("variables/batch_stats/")


def table(groups):
    """Returns {group: {"path:axis:role": positions of each unit}}."""
    return {
        g.name: {
            f"{short(m.path)}:{m.axis}:{m.role}".removesuffix(":"): m.index.tolist()
            for m in g.members
        }
        for g in groups.groups
    }


def spelt(rows):
    """Returns {member: positions} of {members: positions}."""
    return {
        member: index.tolist()
        for words, index in rows.items()
        for member in words.split()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TABLES, *PARTS])
def test_tables(name):
    wanted = TABLES.get(name) or PARTS.get(name, {})
    members = table(found(name))
    for group, rows in wanted.items():
        assert members[group] == spelt(rows)
    assert name not in TABLES or set(members) == set(wanted)
    for group in found(name).groups:
        assert all(len(m.index) == group.size for m in group.members)
        assert set(group.paths()) == {m.path for m in group.members}
    assert not found(name).missed


# --- What must not be cut, and why

_INPUT = "it follows the inputs of the program"
_OUTPUT = "it is an output of the program"
_WINDOW = "a window of a convolution moves along it"
_LOOKED_UP = "positions are looked up in it"
_DIVIDED = "div is not defined where a mask makes it 0"
_SUMMED = "a sum goes over values that a mask does not make 0"
_SCANNED = "a scan goes through it"
PINNED = {
    "mlp": {
        "dense_0/kernel:0": _INPUT,
        "logits/bias:0": _OUTPUT,
        "logits/kernel:1": _OUTPUT,
    },
    "lenet5": {
        **{f"conv{i}/kernel:{axis}": _WINDOW for i in (1, 2) for axis in (0, 1)},
        "ip2/bias:0": _OUTPUT,
        "ip2/kernel:1": _OUTPUT,
    },
    "weight_norm": {
        "Dense_0/bias:0": _OUTPUT,
        "Dense_0/kernel:0": _DIVIDED,
        "Dense_0/kernel:1": _OUTPUT,
        "kernel_0:0": _INPUT,
        "kernel_0:1": _DIVIDED,
        "kernel_1:0": _DIVIDED,
        "kernel_1:1": _DIVIDED,
        "scale_0:0": _DIVIDED,
        "scale_1:0": _DIVIDED,
    },
    "bert": {
        "logits/bias:0": _OUTPUT,
        "logits/kernel:1": _OUTPUT,
        **{f"{n}/embedding:0": _LOOKED_UP for n in ("places", "tokens", "types")},
    },
    "tied": {"Embed_0/embedding:0": _LOOKED_UP},
    "scan": {
        "Dense_0/bias:0": _OUTPUT,
        "Dense_0/kernel:1": _OUTPUT,
        "Dense_1/kernel:0": _INPUT,
        **{
            f"layers/Dense_{i}/{n}:0": _SCANNED
            for i in (0, 1)
            for n in ("bias", "kernel")
        },
        **{f"layers/LayerNorm_0/{n}:0": _SCANNED for n in ("bias", "scale")},
    },
}


def pinned(groups):
    return {f"{short(p.path)}:{p.axis}": p.why for p in groups.pinned}


@pytest.mark.parametrize("name", PINNED)
def test_what_is_pinned_says_why(name):
    assert pinned(found(name)) == PINNED[name]


def test_the_variance_of_differences_pins_what_it_goes_over():
    """Where x is masked, x - mean(x) is not 0; only E[x^2] - E[x]^2 lets it go."""
    fast, slow = (table(found(name)) for name in ("bert", "bert_slow_norm"))
    assert {g: m for g, m in fast.items() if g != "out_0"} == slow
    width = {":".join(member.split(":")[:2]) for member in fast["out_0"]}
    why = pinned(found("bert_slow_norm"))
    assert {place for place, reason in why.items() if reason == _SUMMED} == width


def weights(**shapes):
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=n).astype(np.float32) for k, n in shapes.items()}


X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
odd = core.Primitive("odd")
odd.def_abstract_eval(lambda x: x)


def test_a_primitive_without_a_rule_pins_and_is_listed():
    def f(w, x):
        with jax.named_scope("strange"):
            h = odd.bind(x @ w["a"])
        return odd.bind(x) @ w["c"] @ w["d"] + h @ w["b"]

    w = weights(a=(4, 5), b=(5, 2), c=(4, 6), d=(6, 2))
    groups = shrink.groups(f)(w, X)
    assert groups.missed == ("strange: odd",)  # of x, nothing could be removed
    assert table(groups) == {"c": {"c:1:out": each(6), "d:0:in": each(6)}}
    assert pinned(groups)["a:1"] == "no rule says how odd in strange uses it"
    assert "b:0" in pinned(groups)


def each(n):
    return [[i] for i in range(n)]


def test_leaves_that_are_alike_are_cut_alike():
    def f(w, x):
        return jax.nn.relu(x @ w["a"]) @ w["b"] + jnp.tanh(x @ w["c"]) @ w["d"]

    w = weights(a=(4, 5), b=(5, 2), c=(4, 5), d=(5, 2))
    assert set(table(shrink.groups(f)(w, X))) == {"a", "c"}
    groups = shrink.groups(f, alike=[("a", "c")])(w, X)
    members = ("a:1:out", "b:0:in", "c:1:out", "d:0:in")
    assert table(groups) == {"a": dict.fromkeys(members, each(5))}


def test_a_position_that_a_unit_is_in_twice_is_listed_once():
    """Two axes are merged first, and found to be one afterwards."""

    def f(w, x):
        h, k = x @ w["a"], x @ w["b"]
        both = h[:, :, None] * k[:, None, :]
        return both.reshape(len(x), 9) @ w["c"] + (h + k) @ w["d"]

    groups = shrink.groups(f)(weights(a=(4, 3), b=(4, 3), c=(9, 2), d=(3, 2)), X)
    (members,) = table(groups).values()
    assert members["c:0:in"] == [[0, 1, 2, 3, 6], [1, 3, 4, 5, 7], [2, 5, 6, 7, 8]]


def test_a_pin_holds_for_units_that_are_joined_in_a_chain():
    def f(w, x):
        h = jax.nn.relu(x @ w["a"])
        y = h[:, 5:] * w["c"][None]  # alone along an axis: it cannot go
        return y + (h[:, 2:] + h[:, :-2]) @ w["b"]

    groups = shrink.groups(f)(weights(a=(4, 6), b=(4, 2), c=(2,)), X)
    assert table(groups) == {"a": {"a:1:out": [[0, 2, 4]], "b:0:in": [[0, 2]]}}


# --- A second derivation, by gradients


def dead(gradient, draws, zeros=()):
    """Returns slices (path, axis, position) whose gradients are all exactly 0.

    Args:
      gradient: of weights.
      draws: of weights; a relu may be off by chance, but not in all of them.
      zeros: slices of the weights that are 0.
    """
    found = []
    for weights in draws:
        flat = {k: np.array(w) for k, w in tree.flatten(weights).items()}
        for path, axis, i in zeros:
            np.moveaxis(flat[path], axis, 0)[i] = 0
        slices = set()
        grads = jax.device_get(gradient(tree.replace(weights, flat)))
        for path, g in tree.flatten(grads).items():
            for axis in range(g.ndim):
                others = tuple(a for a in range(g.ndim) if a != axis)
                alive = (g != 0).any(axis=others)
                slices |= {(path, axis, int(i)) for i in np.flatnonzero(~alive)}
        found.append(slices)
    return set.intersection(*found)


def redrawn(weights, seed):
    """Returns weights with other signs, but for variances and scales."""
    rng = np.random.default_rng(seed)
    flat = {
        k: np.where(k.endswith(("var", "scale")) | (rng.random(w.shape) < 0.5), w, -w)
        for k, w in tree.flatten(weights).items()
    }
    return tree.replace(weights, flat)


_FAST = ("mlp", "shared", "glu")
_SLOW = "cnn resnet20 resnext densenet unet fused_qkv bert lstm reshaped".split()


@pytest.mark.parametrize(
    "name", [*_FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in _SLOW)]
)
def test_what_dies_with_a_unit_is_its_group(name):
    """With 0s in a unit's slices they get no gradient; and no other slices lose theirs.

    The first says that nothing of the unit is left, neither what makes it nor what
    reads it; the second that nothing else could have gone along with it.
    """
    case, groups = models.make(name), found(name)
    x = jnp.concatenate([case.again(seed) for seed in range(8)])
    x = 3 * x if x.dtype == jnp.float32 else x

    def loss(w):
        y = case.f(w, x).ravel()
        return (y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32))).sum()

    gradient = jax.jit(jax.grad(loss))
    draws = [redrawn(case.weights, seed) for seed in range(8)]
    before = dead(gradient, draws)
    for group in groups.groups:
        for unit in {0, group.size - 1} if group.size > 1 else ():
            cut, readers = set(), set()
            for m in group.members:
                slices = {(m.path, m.axis, i) for i in m.index[unit].tolist()}
                cut |= slices
                readers |= slices if m.role in ("in", "both") else set()
            after = dead(gradient, draws, cut)
            assert after - before <= cut, (group.name, unit)
            assert readers <= after
            # What makes a unit of a layer norm would still move its mean.
            if not any("LayerNorm" in p or "GroupNorm" in p for p in group.paths()):
                assert cut <= after, (group.name, unit)


def test_a_tiled_axis_repeats_its_units():
    def f(w, x):
        return jnp.tile(x @ w["a"], (1, 2)) @ w["b"]

    weights = {"a": jnp.ones((3, 4)), "b": jnp.ones((8, 2))}
    (group,) = shrink.groups(f)(weights, jnp.ones((2, 3))).groups
    (reads,) = (m.index.tolist() for m in group.members if m.path == "b")
    assert reads == [[i, i + 4] for i in range(4)]


def test_what_is_stacked_is_cut_alike_and_stays_a_stack():
    def f(w, x):
        both = jnp.stack([x @ w["a"], x @ w["b"]], axis=1)
        first, second = jnp.unstack(both, axis=1)
        return (first * second) @ w["c"]

    shapes = {"a": (3, 4), "b": (3, 4), "c": (4, 2)}
    weights = {name: jnp.ones(shape) for name, shape in shapes.items()}
    found = shrink.groups(f)(weights, jnp.ones((2, 3)))
    (group,) = found.groups
    assert group.paths() == ("a", "b", "c") and not found.missed
    assert all(m.index.tolist() == [[i] for i in range(4)] for m in group.members)


@pytest.mark.parametrize(
    "middle",
    [
        # Primitives of their own in JAX 0.11: log2, and 1 - x**2 in tanh's derivative.
        lambda h: jnp.log2(h * h + 1.0),
        jax.vmap(jax.vmap(jax.grad(jnp.tanh))),
    ],
)
def test_what_jax_names_anew_is_followed(middle):
    w = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
    groups = shrink.groups(lambda w, x: middle(x @ w["a"]) @ w["b"])(
        w, jnp.ones((2, 3))
    )
    assert not groups.missed
    assert [(g.size, g.paths()) for g in groups.groups] == [(4, ("a", "b"))]
