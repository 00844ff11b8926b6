"""Which additions are residual, and what the policy "adds" does with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import errors, numerics, program

EIGHT = {"bits": 8, "symmetric": False}
X = jax.ShapeDtypeStruct((2, 4), jnp.float32)
W = jax.ShapeDtypeStruct((4, 4), jnp.float32)
FLOATS = jax.random.normal(jax.random.key(0), (5, 4))


def lines(f, *args, **kwargs):
    """Returns the names of the residual additions, and checks all other sites."""
    found = program.sites(f, points="adds")(*args, **kwargs)
    plain = program.sites(f)(*args, **kwargs)
    contractions = [s for s in found if s.primitive != "add"]
    assert [s[:-1] for s in contractions] == [s[:-1] for s in plain]
    assert all(s.macs == 0 for s in found if s.primitive == "add")
    return [s.name for s in found if s.primitive == "add"]


def scaled(w, x):
    return (x @ w) * 2 - jnp.arange(4.0)[None]


def cubed(w, x):
    y = x @ w
    return y + 0.3 * y**3


def looped(w, x):
    def turn(x, _):
        return x + jnp.tanh(x) @ w, None

    return lax.scan(turn, x, None, length=3)[0]


def dropped(w, x, key):
    y = nn.Dropout(0.5, deterministic=False).apply({}, x @ w, rngs={"dropout": key})
    return x + y


RESIDUAL = {
    "plain": lambda w, x: x + x @ w,
    "behind_constants": lambda w, x: scaled(w, x) / 3 + x,
    "behind_a_transposition": lambda w, x: ((x @ w).T + x.T).reshape(-1),
    "of_two_contractions": lambda w, x: x @ w + (x * x) @ w,
    "in_a_call": lambda w, x: jax.jit(lambda a, b: a + b)(x @ w, x),
    "in_remat": lambda w, x: jax.checkpoint(lambda w, x: x + x @ w)(w, x),
    "through_the_call_of_relu": lambda w, x: nn.relu(x @ w) @ w + nn.relu(x),
    "batch_statistics": lambda w, x: ((x @ w) - (x @ w).mean(0)[None]) + x,
}
OTHERS = {
    "a_bias": lambda w, x: x @ w + w[0][None],
    "its_own_cube": cubed,
    "gelu": lambda w, x: nn.gelu(x @ w),
    "behind_a_relu": lambda w, x: nn.relu(x @ w) + x,
    "gates": lambda w, x: nn.sigmoid(x @ w) * x + nn.sigmoid(x) * jnp.tanh(x @ w),
    "without_a_contraction": lambda w, x: x + 2 * x,
    "of_the_batch_alone": lambda w, x: x @ w + (x @ w).mean(0)[None],
    "leaky": lambda w, x: nn.leaky_relu(x @ w) + x,
    "whole_numbers": lambda w, x: x.astype(int) + (x @ w).astype(int),
    "softmax": lambda w, x: nn.log_softmax(x @ w),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual(name):
    assert len(lines(RESIDUAL[name], W, X)) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_not_residual(name):
    assert lines(OTHERS[name], W, X) == []


def test_dropout_in_training_does_not_hide_it():
    assert lines(dropped, W, X, jax.random.key(0)) == ["add"]


@pytest.mark.slow
def test_in_a_scan_it_is_one_site_with_a_range_a_turn():
    assert lines(looped, W, X) == ["add"]
    w = jnp.eye(4)
    ranges = program.calibrate(looped, w, [(FLOATS,)], program.minmax(), points="adds")
    assert ranges["add"]["lhs"][0].shape == (3,)
    f = program.fake_quantize(looped, ranges, [(".", EIGHT)], points="adds")
    np.testing.assert_allclose(f(w, FLOATS), looped(w, FLOATS), atol=0.1)


class Net(nn.Module):
    """Two residual blocks and gates that look like them."""

    @nn.compact
    def __call__(self, x, *, train):
        for i in range(2):
            y = nn.Conv(4, (3, 3), name=f"conv_{i}")(x)
            y = nn.BatchNorm(use_running_average=not train, name=f"norm_{i}")(y)
            x = nn.relu(x + y)
        return nn.LSTMCell(3)((jnp.ones((2, 3)), jnp.ones((2, 3))), x.mean((1, 2)))[1]


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_the_same_sites_in_training_and_in_evaluation(train):
    x = jnp.ones((2, 5, 5, 4))
    params = jax.eval_shape(
        lambda: Net().init(jax.random.key(0), jnp.ones((2, 5, 5, 4)), train=False)
    )

    def f(params, x):
        return Net().apply(params, x, train=train, mutable=["batch_stats"])[0]

    assert lines(f, params, x)[:2] == ["Net/add", "Net/add#1"]


def residual(w, x):
    with jax.named_scope("block"):
        return x + x @ w


def test_both_operands_are_rounded_and_only_where_the_policy_says():
    w = jax.random.normal(jax.random.key(1), (4, 4))
    rules = [(".", EIGHT)]
    ranges = program.calibrate(
        residual, w, [(FLOATS,)], program.minmax(), points="adds"
    )
    assert list(ranges) == ["block", "block/add"]
    assert set(ranges["block/add"]) == {"lhs", "rhs"}

    def point(x, site, side):
        return numerics.fake_quant(
            x, numerics.grid(*ranges[site][side], 8, symmetric=False)
        )

    y = point(FLOATS, "block", "lhs") @ w
    expected = point(FLOATS, "block/add", "lhs") + point(y, "block/add", "rhs")
    f = program.fake_quantize(residual, ranges, rules, points="adds")
    np.testing.assert_allclose(f(w, FLOATS), expected, rtol=1e-6)
    rows = program.coverage(residual, rules, points="adds")(w, FLOATS)
    assert [(r.site, r.primitive, r.operands, r.macs > 0) for r in rows] == [
        ("block", "dot_general", ("lhs",), True),
        ("block/add", "add", ("lhs", "rhs"), False),
    ]
    inputs = {"block": ranges["block"]}
    f = program.fake_quantize(residual, inputs, rules)
    np.testing.assert_allclose(f(w, FLOATS), FLOATS + y, rtol=1e-6)
    with pytest.raises(errors.UserError, match="range of 'block/add': no such site"):
        program.fake_quantize(residual, ranges, rules)(w, FLOATS)


@pytest.mark.slow
def test_parts_of_one_value_share_a_range():
    """A shortcut that drops rows, and zeros beside it, is rounded as the whole is."""

    def f(w, x):
        y = jnp.pad(x[::2], ((0, 0), (0, 1)))
        return y + x[::2] @ w, x @ w, (x * x) @ w

    w, x = jnp.ones((4, 5)), FLOATS.at[1, 0].set(50)
    ranges = program.calibrate(f, w, [(x,)], program.minmax(), points="adds")
    assert list(ranges) == ["dot_general", "add", "dot_general#1", "dot_general#2"]
    for site in list(ranges)[:3]:
        assert ranges[site]["lhs"] == (x.min(), 50)
    assert ranges["dot_general#2"]["lhs"][1] == 2500
    parts = program.calibrate(f, w, [(x,)], program.minmax())
    assert parts["dot_general"]["lhs"][1] == x[::2].max() < 50


def test_a_policy_that_is_none_is_told():
    with pytest.raises(errors.UserError, match="did you mean 'adds'"):
        program.sites(residual, points="add")(W, X)
