"""Scales that can move through a program: which, and what moves along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lib import models, tree
from lib.program.preserving.links import links


def weights(**shapes):
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def x(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def holds(f, w, *args):
    """Scales every link by random factors: the result stays; returns the links."""
    found, missed = links(f)(w, *args)
    f = jax.jit(f)
    before = f(w, *args)
    rng = np.random.default_rng(0)
    for link in found:
        new = link.scaled(w, np.exp(rng.normal(size=link.channels)))
        flat, old = tree.flatten(new), tree.flatten(w)
        moved = {p for p in flat if not np.array_equal(flat[p], old[p])}
        assert moved == set(link.paths)
        np.testing.assert_allclose(f(new, *args), before, rtol=2e-4, atol=2e-5)
    return found, {m.name: m.why for m in missed}


def test_an_mlp_by_hand():
    def f(w, x):
        h = jax.nn.relu(x @ w["a"] + w["b"][None])
        return h @ w["c"] + w["d"][None]

    w = weights(a=(3, 4), b=(4,), c=(4, 2), d=(2,))
    (link,), missed = links(f)(w, x(5, 3))
    assert (link.kind, link.path, link.channels) == ("contraction", "a", 4)
    by = np.array([1.0, 2.0, 4.0, 0.5], np.float32)
    new = link.scaled(w, by)
    np.testing.assert_array_equal(new["a"], w["a"] * by)
    np.testing.assert_array_equal(new["b"], w["b"] * by)
    np.testing.assert_array_equal(new["c"], w["c"] / by[:, None])
    np.testing.assert_array_equal(new["d"], w["d"])
    assert [m.why for m in missed] == ["its input is the program's"]
    (reader,) = link.readers
    assert (reader.side, reader.axes, reader.path) == ("lhs", (1,), "c")
    np.testing.assert_array_equal(reader.labels, np.arange(4))


DIMS = ("NHWC", "HWIO", "NHWC")


def conv(x, k, groups=1, padding="SAME"):
    return lax.conv_general_dilated(
        x, k, (1, 1), padding, dimension_numbers=DIMS, feature_group_count=groups
    )


@pytest.mark.slow
def test_convolutions_in_groups_pooled_padded_and_flattened():
    def f(w, x):
        x = conv(x, w["a"]) - w["mean"].reshape(1, 1, 1, -1)
        x = jax.nn.leaky_relu(x * jnp.exp(w["log"])[None, None, None])
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = jax.nn.relu(conv(x, w["depthwise"], 6, "VALID"))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.avg_pool(conv(x, w["grouped"], 3), (2, 2), (1, 1), padding="SAME")
        return jnp.swapaxes(x, 1, 2).reshape(x.shape[0], -1) @ w["out"]

    w = weights(
        a=(3, 3, 2, 6),
        mean=(6,),
        log=(6,),
        depthwise=(3, 3, 1, 6),
        grouped=(1, 1, 2, 9),
        out=(3 * 2 * 9, 4),
    )
    found, _ = holds(f, w, x(2, 6, 4, 2))
    assert [(link.path, *link.shrink) for link in found] == [
        ("a", "depthwise"),
        ("depthwise", "grouped"),
        ("grouped", "out"),
    ]
    assert set(found[0].grow) == {"a", "mean"}


@pytest.mark.slow
def test_a_transformer_block():
    module = models.build("transformer", classes=3, layers=1, width=8, heads=2)
    params, _ = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (8, 8, 1))
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(0, 0.3, p.shape), params)
    params = jax.tree.map(jnp.float32, params)
    apply = models.make_apply(module)

    def f(params, x):
        return apply(params, {}, x, train=False, key=None)[0][0]

    found, why = holds(f, params, x(2, 8, 8, 1))
    block = "block_0/attention/"
    assert {link.path: sorted(link.shrink) for link in found} == {
        "block_0/norm_0/scale": [
            block + f"{n}/kernel" for n in ("key", "query", "value")
        ],
        "block_0/attention/value/kernel": [block + "out/kernel"],
        "block_0/norm_1/scale": ["block_0/dense_0/kernel"],
        "norm/scale": ["logits/kernel"],
    }
    assert set(why) == {"Transformer/embed", "Transformer/block_0/dense_1"}
    assert "not homogeneous" in why["Transformer/block_0/dense_1"]  # GELU


def tied(w, x):
    return jax.nn.relu(x @ w["a"]) @ w["a"] @ w["b"]


def residual(w, x):
    return (x @ w["b"] + jax.nn.relu(x @ w["a"])) @ w["a2"]


def result(w, x):
    h = jax.nn.relu(x @ w["a"])
    return h @ w["a2"], h


def capped(w, x):
    return jnp.minimum(jax.nn.relu(x @ w["a"]), 6) @ w["a2"]


def mixed(w, x):
    return jnp.cumsum(jax.nn.relu(x @ w["a"]), 1) @ w["a2"]


def averaged(w, x):
    h = jax.nn.relu(x @ w["a"])
    return (h - h.mean(1, keepdims=True)) @ w["a2"]


def looped(w, x):
    h = jax.nn.relu(x @ w["a"])
    return lax.scan(lambda c, _: (c @ w["a2"], None), h, None, length=2)[0]


def shared_bias(w, x):
    h = x @ w["a"] + w["b"][:1, :1]
    return jax.nn.relu(h) @ w["a2"]


def compared(w, x):
    h = jax.nn.relu(x @ w["a"])
    return jnp.where(h >= h[:, ::-1], h, 0) @ w["a2"]


def whole(w, x):
    h = jax.nn.relu(x @ w["a"])
    return h.astype(jnp.int32).astype(jnp.float32) @ w["a2"]


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (tied, "a is read at 2 places"),
        (residual, "another value is added to it"),
        (result, "it is a result of the program"),
        (capped, "min is not homogeneous"),
        (mixed, "cumsum is not homogeneous"),
        (averaged, "mixes its channels"),
        (looped, "scan is not homogeneous"),
        (compared, "ge of different channels"),
        (whole, "convert_element_type is not homogeneous"),
        (shared_bias, "one weight for several channels"),
    ],
)
def test_what_cannot_move_says_why(f, why):
    w = weights(a=(3, 3), b=(3, 3), a2=(3, 3))
    found, missed = links(f)(w, x(2, 3))
    assert not [link for link in found if link.path == "a"]
    if f is not looped:  # whose contraction has no name of ours
        assert any(why in m.why for m in missed), missed
