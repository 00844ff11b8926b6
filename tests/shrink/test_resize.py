"""The small program under every transformation, in every kind of control flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from lib import models as lib_models
from lib import program, shrink, tree
from tests.shrink import models
from tests.shrink.cuts import close, cut, graded, half, halved, same

# --- Every use


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cnn", "vit"))]
)
def test_vmap(name):
    one = cut(name)
    xs = jnp.stack([one.case.again(seed) for seed in range(2)])
    found = jax.jit(jax.vmap(one.f, in_axes=(None, 0)))(one.weights, xs)
    close(found, jax.jit(jax.vmap(one.case.f, in_axes=(None, 0)))(one.masked, xs))


@pytest.mark.slow
def test_gradients_of_each_example():
    one = cut("mlp")
    loss = lambda w, x: one.f(w, x[None]).sum()  # noqa: E731
    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(one.weights, one.case.x)
    total = jax.grad(lambda w: one.f(w, one.case.x).sum())(one.weights)
    close(jax.tree.map(lambda g: g.sum(0), grads), total)


def _transformer():
    module = lib_models.build("transformer", classes=3, layers=1, width=8, heads=2)
    return models.case(module, models.floats(2, 8, 8, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "transformer"])
def test_export_with_a_symbolic_batch(name):
    one = halved(_transformer()) if name == "transformer" else cut(name)
    (b,) = export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, *one.case.x.shape[1:]), one.case.x.dtype)
    shapes = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), one.weights)
    exported = export.export(jax.jit(one.f))(shapes, x)
    for batch in (one.case.x, jnp.concatenate([one.case.x, one.case.again(1)])):
        close(exported.call(one.weights, batch), one.case.f(one.masked, batch))


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cnn", "tied"))]
)
def test_a_second_cut_is_one_of_both_plans(name):
    one = cut(name)
    groups = shrink.groups(one.f)(one.weights, one.case.x)
    assert {g.name for g in groups.groups} <= {g.name for g in one.groups.groups}
    second = shrink.make(groups, half(groups, 1))
    both = shrink.compose(one.plan, second)
    weights = shrink.cut(both, one.case.weights)
    twice = shrink.cut(second, one.weights)
    assert jax.tree.structure(weights) == jax.tree.structure(twice)
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(twice), strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = jax.jit(one.case.f)(shrink.mask(both, one.case.weights), one.case.x)
    close(jax.jit(shrink.resize(one.case.f, both))(weights, one.case.x), wanted)
    close(jax.jit(shrink.resize(one.f, second))(weights, one.case.x), wanted)


def test_no_plan_is_the_function_itself():
    one = cut("mlp").case
    f = jax.jit(shrink.resize(one.f, shrink.Plan()))
    np.testing.assert_array_equal(f(one.weights, one.x), jax.jit(one.f)(*one[1:3]))


def test_it_passes_keyword_arguments_and_structures_on():
    def f(w, x, *, scale, more=None):
        h = jnp.tanh(x @ w["a"])
        return {"y": scale * (h @ w["b"]), "none": more, "width": h.shape[1]}

    rng = np.random.default_rng(0)
    w = {"a": rng.normal(size=(3, 6)), "b": rng.normal(size=(6, 2))}
    w, x = jax.tree.map(jnp.float32, w), jnp.ones((2, 3))
    groups = shrink.groups(f)(w, x, scale=2.0)
    plan = shrink.make(groups, {"a": [0, 5]})
    out = shrink.resize(f, plan)(shrink.cut(plan, w), x, scale=2.0)
    close(out["y"], f(shrink.mask(plan, w), x, scale=2.0)["y"])
    # A number of the program stays what it is at the large sizes.
    assert (out["none"], int(out["width"])) == (None, 6)
    assert tree.flatten(shrink.cut(plan, w))["a"].shape == (3, 4)


# --- Control flow and derivative rules, on small functions


def weights(**shapes):
    rng = np.random.default_rng(0)
    return {k: jnp.asarray(rng.normal(size=n), jnp.float32) for k, n in shapes.items()}


W = weights(a=(4, 6), b=(6, 2), r=(6, 6), s=(3, 6, 6), m=(2, 3), v=(6,))
X = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)


def case(f):
    return models.Case(f, W, X, lambda seed: X, None)


def scanned(w, x):
    def turn(h, r):
        return jnp.tanh(h @ r), h.mean(1)

    h, means = lax.scan(turn, x @ w["a"], w["s"], reverse=True, unroll=2)
    return h @ w["b"] + means.sum()


def conditional(w, x):
    h = jax.nn.relu(x @ w["a"])
    h = lax.cond(x.sum() > 0, lambda h: h @ w["r"], lambda h: jnp.sin(h), h)
    return h @ w["b"]


def switched(w, x):
    branches = [jnp.sin, lambda h: h @ w["r"], jnp.zeros_like]
    pick = (jnp.abs(x[0, 0] * 100)).astype(jnp.int32) % 3
    return lax.switch(pick, branches, x @ w["a"]) @ w["b"]


def checkpointed(w, x):
    turn = jax.checkpoint(lambda h: jnp.tanh(h @ w["r"]) * w["v"][None])
    return turn(turn(x @ w["a"])) @ w["b"]


def constants(w, x):
    h = x @ w["a"] * jnp.arange(18, dtype=jnp.float32).reshape(3, 6)
    h = jnp.where(jnp.arange(6)[None] % 2 == 0, h, jnp.flip(h, 1))
    return jnp.roll(h, 2, axis=1) @ w["b"]


def merged(w, x):
    h = (x @ w["a"]).reshape(3, 2, 3) * w["m"][None]
    return h.swapaxes(1, 2).reshape(3, 6) @ w["b"]


@jax.custom_vjp
def sevenfold(x, by):
    return x * by


sevenfold.defvjp(lambda x, by: (x * by, by), lambda by, g: (7 * g * by, None))


def backward_rule(w, x):
    by = jnp.arange(1, 7)[None]
    return sevenfold(jnp.sin(x @ w["a"]), by) @ w["b"]


@jax.custom_jvp
def scaled(x, y):
    return x * jnp.exp(y)


@scaled.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return scaled(x, y), 5 * jnp.exp(y) * (dx + x * dy)


def forward_rule(w, x):
    h = jnp.sin(x @ w["a"])
    return scaled(h, jnp.cos(h)) @ w["b"]


@jax.custom_jvp
def root(x):
    return jnp.sqrt(x)


@root.defjvp
def _(primals, tangents):
    y = root(*primals)
    return y, jnp.where(y > 0, 0.5 / y, 0.0) * tangents[0]


def rule_with_a_pole(w, x):
    """0 / 0 on the way, which `where` leaves out."""
    h = (x @ w["a"]).reshape(3, 2, 3) * w["m"][None]
    return root(jnp.abs(h.reshape(3, 6))) @ w["b"]


@pytest.mark.parametrize(
    "f",
    [
        scanned,
        conditional,
        switched,
        checkpointed,
        constants,
        merged,
        backward_rule,
        forward_rule,
        rule_with_a_pole,
    ],
)
def test_small_functions(f):
    one = halved(case(f))
    assert one.plan.cuts
    same(one, X)
    left = sum(s.macs for s in program.sites(one.f)(one.weights, X))
    assert shrink.macs(one.groups, one.removed) == left


def test_a_while():
    def f(w, x):
        def turn(state):
            i, h = state
            return i + 1, jnp.tanh(h @ w["r"])

        i, h = lax.while_loop(lambda state: state[0] < 3, turn, (0, x @ w["a"]))
        return lax.fori_loop(0, i, lambda i, y: y * 2, h @ w["b"])

    one = halved(case(f))
    assert one.plan.cuts
    close(one.f(one.weights, X), f(one.masked, X))


@pytest.mark.parametrize(
    ("f", "plain", "factor"),
    [
        (backward_rule, lambda x: x * jnp.arange(1, 7)[None], 7),
        (forward_rule, lambda x: x * jnp.exp(jnp.cos(x)), 5),
    ],
)
def test_the_factors_of_rules_are_kept(f, plain, factor):
    """The rules give 7 and 5 times what is the derivative."""
    one = halved(case(f))
    other = halved(case(lambda w, x: plain(jnp.sin(x @ w["a"])) @ w["b"]))
    assert one.removed["a"].tolist() == other.removed["a"].tolist()
    y, grads = graded(one.f)(one.weights, X)
    plain_y, plain_grads = graded(other.f)(other.weights, X)
    close(y, plain_y)
    close(grads["a"], factor * plain_grads["a"])


def test_the_derivative_of_relu_at_0_is_0():
    def f(w, x):
        return jax.nn.relu(x @ w["a"] + w["v"][None]) @ w["b"]

    one = halved(case(f))
    at_zero = {**one.weights, "v": jnp.zeros_like(one.weights["v"])}
    _, grads = graded(one.f)(at_zero, jnp.zeros_like(X))
    assert one.weights["v"].shape == (3,)
    assert not grads["v"].any()
