"""Scores of units against loops over units, gates and a forward pass by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, shrink, tree
from lib.shrink import scores
from tests.shrink import models


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def mlp(w, x, gate_a=1.0, gate_b=1.0):
    """A perceptron with a gate on each hidden unit, and what its layers read."""
    a = jax.nn.relu(x @ w["a"] + w["a_bias"][None]) * gate_a
    b = jnp.tanh(a @ w["b"]) * gate_b
    return b @ w["c"], {"a": a, "b": b}


MLP = {
    name: normal(*shape, seed=i)
    for i, (name, shape) in enumerate(
        {"a": (4, 6), "a_bias": (6,), "b": (6, 5), "c": (5, 3)}.items()
    )
}


def cnn(w, x, gate_a=1.0, gate_b=1.0):
    """Two convolutions, then each place's channels into one layer."""

    def conv(x, k):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=dims
        )

    a = jax.nn.relu(conv(x, w["a"]) + w["a_bias"][None, None, None]) * gate_a
    b = jax.nn.relu(conv(a, w["b"])) * gate_b
    return b.reshape(b.shape[0], -1) @ w["c"], {"a": a, "b": b}


CNN = {
    name: normal(*shape, seed=i)
    for i, (name, shape) in enumerate(
        {"a": (2, 2, 3, 6), "a_bias": (6,), "b": (2, 2, 6, 5), "c": (20, 3)}.items()
    )
}
KINDS = {
    "mlp": (mlp, MLP, [normal(8, 4, seed=s) for s in range(3)]),
    "cnn": (cnn, CNN, [normal(2, 4, 4, 3, seed=s) for s in range(3)]),
}


def logits(f):
    return lambda w, x: f(w, x)[0]


@pytest.fixture(params=KINDS)
def kind(request):
    """Returns (function with gates, weights, batches, groups)."""
    f, w, xs = KINDS[request.param]
    return f, w, xs, shrink.groups(logits(f))(w, xs[0])


def same(found, wanted, rtol=1e-4):
    assert set(found) == set(wanted)
    for name, score in found.items():
        assert score.dtype == np.float64
        np.testing.assert_allclose(score, wanted[name], rtol=rtol, atol=1e-6)


# --- Norms


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("roles", [("out",), ("in",), ("in", "out", "")])
def test_norms_are_sums_over_each_units_slices(order, roles, kind):
    _, w, _, groups = kind
    wanted = {}
    for group in groups.groups:
        wanted[group.name] = np.zeros(group.size)
        for unit in range(group.size):
            for m in group.members:
                for i in m.index[unit] if m.role in roles else ():
                    piece = np.take(np.asarray(w[m.path], float), i, axis=m.axis)
                    wanted[group.name][unit] += (np.abs(piece) ** order).sum()
        wanted[group.name] **= 1 / order
    same(scores.norm(groups, w, order=order, roles=roles), wanted)


def test_norms_by_hand():
    w = {"a": jnp.array([[3.0, 1, -2], [-4, 0, 1]]), "b": jnp.array([[1.0], [-2], [2]])}
    groups = shrink.groups(lambda w, x: jnp.tanh(x @ w["a"]) @ w["b"])(
        w, jnp.ones((1, 2))
    )
    same(scores.norm(groups, w), {"a": [7, 1, 3]})
    same(scores.norm(groups, w, order=2), {"a": [5, 1, 5**0.5]})
    same(scores.norm(groups, w, roles=("in",)), {"a": [1, 2, 2]})
    same(scores.norm(groups, w, roles=("in", "out")), {"a": [8, 3, 5]})
    same(scores.norm(groups, w, order=2, pattern="b"), {"a": [1, 2, 2]})


def test_the_scale_of_batch_norm():
    case = models.make("cnn")
    groups = shrink.groups(case.f)(case.weights, case.x)
    # Both norms of the stream count, and no other leaf.
    scales = {
        k.split("/")[1]: np.asarray(v)
        for k, v in tree.flatten(case.weights).items()
        if k.endswith("scale")
    }
    roles = ("out", "in", "")
    found = scores.norm(
        groups._replace(groups=groups.groups[:2]),
        case.weights,
        pattern="scale$",
        roles=roles,
    )
    wanted = {
        "Conv_0": scales["BatchNorm_0"] + scales["BatchNorm_2"],
        "Conv_1": scales["BatchNorm_1"],
    }
    same(found, wanted)
    with pytest.raises(errors.UserError, match="'Conv_3' has no leaf.*Conv_3/bias"):
        scores.norm(groups, case.weights, pattern="scale$", roles=roles)


def test_a_position_that_two_axes_share_counts_once():
    def f(w, x):
        h, k = x @ w["a"], x @ w["b"]
        both = (h[:, :, None] * k[:, None, :]).reshape(len(x), 4)
        return both @ w["c"] + (h + k) @ w["d"]

    w = {
        "a": normal(4, 2),
        "b": normal(4, 2),
        "c": jnp.ones((4, 1)),
        "d": jnp.zeros((2, 1)),
    }
    groups = shrink.groups(f)(w, normal(3, 4))
    same(scores.norm(groups, w, pattern="c", roles=("in",)), {"a": [3.0, 3.0]})


def test_members_that_do_both_count_as_either():
    case = models.make("shared")
    groups = shrink.groups(case.f)(case.weights, case.x)
    w = np.abs(np.asarray(case.weights["params"]["kernel"]))
    for roles in (("in",), ("out",)):
        found = scores.norm(groups, case.weights, roles=roles, pattern="^params/kernel")
        same(found, {"Dense_1": w.sum(1), "kernel": w.sum(0)})


def test_another_order():
    with pytest.raises(errors.UserError, match="order 1 or 2, got 3"):
        scores.norm(shrink.groups(logits(mlp))(MLP, normal(8, 4)), MLP, order=3)


# --- Of a loss


def _loss(f):
    def loss(w, x, *gates):
        y, _ = f(w, x, *gates)
        return (y * jnp.sin(3 * y)).mean()

    return loss


@pytest.mark.slow
def test_first_order_scores_are_derivatives_by_gates(kind):
    f, w, xs, groups = kind
    gates = (
        jnp.ones((1,) * (xs[0].ndim - 1) + (6,)),
        jnp.ones((1,) * (xs[0].ndim - 1) + (5,)),
    )
    slopes = [jax.grad(_loss(f), argnums=(2, 3))(w, x, *gates) for x in xs]
    taylor, fisher = scores.first_order(groups, _loss(f), w, xs)
    for name, place in (("a", 0), ("b", 1)):
        each = np.array([np.ravel(s[place]) for s in slopes], float)  # [batch, unit]
        np.testing.assert_allclose(
            taylor[name], np.abs(each.mean(0)), rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            fisher[name], (each**2).mean(0), rtol=1e-3, atol=1e-6
        )


def test_first_order_scores_are_differences_of_the_loss():
    """The loss with a unit a little weaker, by finite differences in float64."""
    f, w, xs = KINDS["mlp"]
    groups = shrink.groups(logits(f))(w, xs[0])
    taylor, _ = scores.first_order(groups, _loss(f), w, xs[:1])

    def loss(gate):  # of the perceptron, by NumPy
        p = {k: np.asarray(v, float) for k, v in w.items()}
        a = np.maximum(np.asarray(xs[0], float) @ p["a"] + p["a_bias"], 0) * gate
        y = np.tanh(a @ p["b"]) @ p["c"]
        return (y * np.sin(3 * y)).mean()

    for unit in range(6):
        step = 1e-5 * np.eye(6)[unit]
        slope = (loss(1 + step) - loss(1 - step)) / 2e-5
        assert taylor["a"][unit] == pytest.approx(abs(slope), rel=1e-3, abs=1e-6)


def test_losses_that_cannot_be_scored():
    f, w, xs = KINDS["mlp"]
    groups = shrink.groups(logits(f))(w, xs[0])
    with pytest.raises(errors.UserError, match="at least one batch"):
        scores.first_order(groups, _loss(f), w, [])
    bad = lambda w, x: jnp.sqrt(-1 - (f(w, x)[0] ** 2).sum())  # noqa: E731
    with pytest.raises(errors.UserError, match="'a' gets NaN"):
        scores.first_order(groups, bad, w, xs)


# --- Of activations


def test_activations_are_those_of_a_forward_pass(kind):
    f, w, xs, groups = kind
    mean, active = scores.activations(logits(f), groups, w, ((x,) for x in xs))
    seen = [f(w, x)[1] for x in xs]
    size, share = {}, {}
    for name in "ab":
        every = np.concatenate(
            [np.asarray(s[name]).reshape(-1, s[name].shape[-1]) for s in seen]
        )
        size[name], share[name] = np.abs(every).mean(0), (every != 0).mean(0)
    # (A convolution reads all places of its input.)
    same(mean, size)
    same(active, share)
    assert all((0 < x).all() and (x <= 1).all() for x in active.values())


def test_activations_in_a_scan_are_means_over_its_turns():
    def f(w, x):
        def turn(h, r):
            return jnp.tanh(h @ r), None

        return jax.lax.scan(turn, x @ w["a"], w["r"])[0] @ w["b"]

    w = {"a": normal(4, 5), "r": normal(3, 5, 5), "b": normal(5, 2)}
    x = normal(8, 4)
    groups = shrink.groups(f)(w, x)
    mean, active = scores.activations(f, groups, w, [(x,)])
    h, turns = x @ w["a"], []
    for r in w["r"]:
        turns.append(np.abs(h).mean(0))
        h = jnp.tanh(h @ r)
    # Two contractions read the units: that of the scan, and the last.
    wanted = (np.mean(turns, 0) + np.abs(h).mean(0)) / 2
    same(mean, {"a": wanted})
    same(active, {"a": np.ones(5)})


def test_activations_that_cannot_be_seen():
    def f(w, x):
        h = x @ w["a"]
        return jax.lax.cond(x.sum() > 0, lambda h: h @ w["b"], lambda h: -h @ w["b"], h)

    w = {"a": normal(4, 5), "b": normal(5, 2)}
    groups = shrink.groups(f)(w, normal(3, 4))
    with pytest.raises(errors.UserError, match="'a' is read by no contraction"):
        scores.activations(f, groups, w, [(normal(3, 4),)])
    with pytest.raises(errors.UserError, match="at least one batch"):
        scores.activations(f, groups, w, [])


# --- Others


def test_random_scores_are_those_of_their_seed(kind):
    *_, groups = kind
    one, again, other = (scores.random(groups, seed) for seed in (0, 0, 1))
    assert {k: len(x) for k, x in one.items()} == {
        g.name: g.size for g in groups.groups
    }
    assert all((one[k] == again[k]).all() and (one[k] != other[k]).all() for k in one)


def test_normalised_scores_have_mean_1():
    found = scores.normalised({"a": np.array([1.0, 3.0]), "b": np.zeros(3)})
    assert found["a"].tolist() == [0.5, 1.5] and found["b"].tolist() == [0, 0, 0]
