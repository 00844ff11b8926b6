"""Which sums are means of what came out of integers, and what "means" rounds there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import numerics, program
from lib.models import pooling

EIGHT = {"bits": 8, "symmetric": False}
IMAGES = jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float32)
KERNEL = jax.ShapeDtypeStruct((3, 3, 3, 3), jnp.float32)


def conv(w, x):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def gated(w, x):
    y = nn.relu(conv(w, x))
    return y * nn.sigmoid(y.mean((1, 2), keepdims=True))


def standardised(w, x):
    y = conv(w, x)
    return (y - y.mean((0, 1, 2))[None, None, None]) * 2


def rectified_and_standardised(w, x):
    y = nn.relu(conv(w, x))
    return y - y.mean((0, 1, 2))[None, None, None]


def spread(w, x):
    y = conv(w, x)
    return y.mean((1, 2)), lax.square(y).mean((1, 2))


MEANS = {
    "of_a_convolution": lambda w, x: conv(w, x).mean((1, 2)),
    "behind_bias_and_relu": lambda w, x: nn.relu(conv(w, x) * 2 + 1).mean((1, 2)),
    "behind_relu6": lambda w, x: nn.relu6(conv(w, x)).mean((1, 2)),
    "behind_a_pooling": lambda w, x: pooling.max_pool(conv(w, x)).mean((1, 2)),
    "behind_flax's_pooling": lambda w, x: nn.max_pool(conv(w, x), (2, 2), (2, 2)).mean(
        (1, 2)
    ),
    "of_a_residual_sum": lambda w, x: nn.relu(x + conv(w, x)).mean((1, 2)),
    "of_windows": lambda w, x: nn.avg_pool(nn.relu(conv(w, x)), (2, 2), (2, 2)),
    "of_tokens": lambda w, x: (x @ w[0, 0]).mean(1),
    "in_a_call": lambda w, x: jax.jit(lambda y: y.mean((1, 2)))(conv(w, x)),
    "beside_a_contraction": lambda w, x: (lambda y: (y.mean((1, 2)), conv(w, y)))(
        nn.relu(conv(w, x))
    ),
}
OTHERS = {
    "of_the_input": lambda w, x: x.mean((1, 2)) @ w[0, 0],
    "behind_gelu": lambda w, x: nn.gelu(conv(w, x)).mean((1, 2)),
    "behind_a_square": lambda w, x: (conv(w, x) ** 2).mean((1, 2)),
    "a_gate": gated,
    "a_norm": standardised,
    "a_norm_behind_relu": rectified_and_standardised,
    "a_spread": spread,
    "a_layer_norm": lambda w, x: nn.standardize(conv(w, x)),
    "softmax": lambda w, x: nn.softmax(conv(w, x)),
    "of_weights": lambda w, x: conv(w, x) * w.sum(),
}


def sums(f, points="means"):
    """Returns the means among the sites, and checks that the others are the same."""
    found = program.sites(f, points=points)(KERNEL, IMAGES)
    other = program.sites(f, points="adds")(KERNEL, IMAGES)
    made = [s for s in found if s.primitive.startswith("reduce")]
    assert [s for s in found if s not in made] == other
    assert all(s.rhs is None and s.activations == ("lhs",) for s in made)
    assert all(s.macs == 0 for s in made)
    return [s.name.rpartition("/")[2] for s in made]


@pytest.mark.parametrize("name", MEANS)
def test_means(name):
    windows = name == "of_windows"
    assert sums(MEANS[name]) == ["reduce_window_sum" if windows else "reduce_sum"]
    assert sums(MEANS[name], "adds") == []


@pytest.mark.parametrize("name", OTHERS)
def test_no_means(name):
    assert sums(OTHERS[name]) == []


def test_a_batch_of_any_length_has_the_same_ones():
    """A strided slice is a gather there."""
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *IMAGES.shape[1:]), jnp.float32)
    found = program.sites(MEANS["behind_a_pooling"], points="means")(KERNEL, images)
    assert [s.name for s in found] == ["conv_general_dilated", "reduce_sum"]


class Net(nn.Module):
    """Batch norm, which takes means of its own while it trains."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(2, name="logits")(nn.relu(x).mean((1, 2)))


@pytest.mark.parametrize("train", [False, True])
def test_the_same_sites_in_training_and_in_evaluation(train):
    x = jnp.ones((2, 5, 5, 3))
    params = jax.eval_shape(lambda: Net().init(jax.random.key(0), x, train=False))

    def f(params, x):
        return Net().apply(params, x, train=train, mutable=["batch_stats"])[0]

    found = program.sites(f, points="means")(params, x)
    assert [s.name for s in found] == ["Net/conv", "Net/reduce_sum", "Net/logits"]


def net(w, x):
    with jax.named_scope("features"):
        y = nn.relu(conv(w["kernel"], x))
    with jax.named_scope("pooled"):
        y = y.mean((1, 2))
    return y @ w["head"]


def drawn():
    """Returns (w, x) for `net`."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((3, 3, 3, 3), (3, 5), (4, 6, 6, 3))
    kernel, head, x = (
        jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)
    )
    return {"kernel": kernel, "head": head}, x


def test_the_operand_is_rounded_and_what_is_read_says_so():
    w, x = drawn()
    rules = [(".", EIGHT)]
    ranges = program.calibrate(net, w, [(x,)], program.minmax(), points="means")
    assert list(ranges) == ["features", "pooled/reduce_sum", "dot_general"]
    assert set(ranges["pooled/reduce_sum"]) == {"lhs"}
    y = nn.relu(conv(w["kernel"], x))
    assert ranges["pooled/reduce_sum"]["lhs"] == (y.min(), y.max())

    def point(x, site):
        ends = ranges[site]["lhs"]
        return numerics.fake_quant(x, numerics.grid(*ends, 8, symmetric=False))

    y = point(nn.relu(conv(w["kernel"], point(x, "features"))), "pooled/reduce_sum")
    expected = point(y.mean((1, 2)), "dot_general") @ w["head"]
    f = program.fake_quantize(net, ranges, rules, points="means")
    np.testing.assert_allclose(f(w, x), expected, rtol=1e-6, atol=1e-6)
    rows = program.coverage(net, rules, points="means")(w, x)
    assert [(r.site, r.operands, r.weight) for r in rows] == [
        ("features", ("lhs",), "kernel"),
        ("pooled/reduce_sum", ("lhs",), ""),
        ("dot_general", ("lhs",), "head"),
    ]


def test_a_range_a_row_is_one_an_image():
    w, x = drawn()
    rules = [("sum", EIGHT | {"range": "token"}), (".", None)]
    f = program.fake_quantize(net, {}, rules, points="means")
    y = nn.relu(conv(w["kernel"], x))

    def one(image):
        grid = numerics.grid(image.min(), image.max(), 8, symmetric=False)
        return numerics.fake_quant(image, grid)

    expected = jnp.stack([one(image) for image in y]).mean((1, 2)) @ w["head"]
    np.testing.assert_allclose(f(w, x), expected, rtol=1e-5, atol=1e-6)


def test_derivatives_pass_through():
    w, x = drawn()
    ranges = program.calibrate(net, w, [(x,)], program.minmax(), points="means")
    f = program.fake_quantize(net, ranges, [(".", EIGHT)], points="means")
    found, plain = (
        jax.jit(jax.grad(lambda w, g=g: g(w, x).sum()))(w) for g in (f, net)
    )
    np.testing.assert_allclose(found["kernel"], plain["kernel"], rtol=0.1, atol=0.1)
