"""Each primitive that has a rule, against JAX: alone, and in odd places."""

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib.deploy import onnx_export
from tests.deploy import exported

ELEMENTS = {
    "arithmetic": lambda x: (1 - x) * x / (x * x + 2) - abs(x) ** 1.5 + x**3 - x**4,
    "functions": lambda x: jnp.exp(jnp.sin(x)) + lax.erf(x) + lax.rsqrt(x * x + 1),
    "activations": lambda x: nn.silu(x) + nn.relu6(x) + nn.elu(x) + nn.softplus(x),
    "logarithms": lambda x: jnp.log2(x * x + 0.5) + jnp.log1p(x * x) + jnp.log(x * x),
    "gelu": lambda x: nn.gelu(x) + nn.gelu(x, approximate=False),
    "softmax": lambda x: nn.softmax(x) + nn.log_softmax(x, axis=1),
    "choices": lambda x: jnp.where((x > 0) & ~(x > 1), x, jnp.clip(x, -0.5, 0.5)),
    "equality": lambda x: jnp.where(jnp.round(x) != 0, x, 7.0) + jnp.sign(jnp.floor(x)),
    "dtypes": lambda x: (x * 3).astype(jnp.int32) // 2 + (x > 0).astype(jnp.int32),
    "reductions": lambda x: (
        x.max((1, 3)),
        x.min(2),
        x.prod(-1),
        x.var((1, 2)),
        x.sum((1, 2, 3)),
    ),
    "positions": lambda x: (x.argmax(2), x.argmin(-1)),
}
SHAPES = {
    "transposed": lambda x: x.transpose((0, 3, 1, 2)).swapaxes(2, 3),
    "reshaped": lambda x: x.transpose((0, 3, 1, 2)).reshape((x.shape[0], -1, 2)),
    "batch_last": lambda x: x.reshape((x.shape[0], -1)).T,
    "repeated": lambda x: jnp.broadcast_to(x[:, None, :, :1], (x.shape[0], 2, 4, 3, 2)),
    "made": lambda x: jnp.zeros((x.shape[0], 2)) + jnp.arange(2.0)[None],
    "made_matrix": lambda x: x @ jnp.full((2, 3), 2.0),
    "repeated_by_a_sum": lambda x: (
        (x.sum((1, 2))[:, :, None] @ jnp.ones((1, 1))) + jnp.ones((1, 2, 5))
    ),
    "constant": lambda x: jnp.ones((x.shape[0], 3)),
    "joined": lambda x: jnp.concatenate(
        [x, jnp.flip(jnp.ones((1, 4, 1, 2)), 1) + x * 0], 2
    ),
    "stacked": lambda x: jnp.stack([x, x.transpose((0, 1, 2, 3))], -1),
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=3),
    "split": lambda x: jnp.split(x, [1, 3], axis=1),
    "indexed": lambda x: (x[:, 1], x[:, 0, :, 1], x[:, ::2, 1:], x[:, -1, ::2]),
}


@pytest.mark.parametrize("name", [*ELEMENTS, *SHAPES])
def test_primitives(name, tmp_path):
    f = (ELEMENTS | SHAPES)[name]
    x = exported.data(3, 4, 3, 2)
    exported.check(lambda _, x: f(x), {}, x, tmp_path / "one.onnx")


PRODUCTS = {
    "weight_first": ("oi,bi->ob", (5, 4), (3, 4)),
    "weight_first_of_more": ("oi,bxi->obx", (5, 4), (3, 2, 4)),
    "two_axes_summed": ("bxyz,yzo->bxo", (3, 4, 5), (2, 6, 3, 4)),
    "two_axes_out": ("bxi,ihd->bxhd", (4, 3, 2), (2, 5, 4)),
    "no_axis_out": ("bxi,i->bx", (4,), (2, 5, 4)),
    "nothing_summed": ("bi,o->bio", (3,), (2, 4)),
    "weight_for_each_head": ("bhi,hio->bho", (3, 4, 5), (2, 3, 4)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_a_weight(name, tmp_path):
    spec, weight, shape = PRODUCTS[name]
    first = spec.index("b") > spec.index(",")

    def f(w, x):
        y = jnp.einsum(spec, *((w, x) if first else (x, w)))
        return y * 2 + 1

    exported.check(
        f, exported.data(*weight), exported.data(*shape), tmp_path / "one.onnx"
    )


def test_products_of_two_activations(tmp_path):
    def f(_, x):
        y = x * 2 - 1
        scores = jnp.einsum("bqhd,bkhd->bhqk", x, y)
        return jnp.einsum("bhqk,bkhd->bqhd", scores, y), jnp.einsum(
            "bqhd,bqhd->b", x, y
        )

    exported.check(f, {}, exported.data(3, 4, 2, 5), tmp_path / "one.onnx")


def test_operands_of_a_product_stand_as_they_are_stored(tmp_path):
    """JAX writes attention's second product with the values first."""

    def f(_, x):
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", x, x))
        return lax.dot_general(x, weights, (((1,), (3,)), ((0, 2), (0, 1))))

    path = tmp_path / "one.onnx"
    exported.check(f, {}, exported.data(3, 4, 2, 5), path)
    turns = [dict(exported.attributes(n))["perm"] for n in exported.nodes(path)
             if n.op_type == "Transpose"]  # fmt: skip
    # Queries and values row by row; keys; the result, as the function returns it.
    assert turns == [[0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 3, 2]]


CONVOLUTIONS = {  # kernel, input, and how; channels last
    "strided": ((3, 2, 3, 5), (2, 7, 6, 3), dict(window_strides=(2, 1))),
    "dilated": ((2, 2, 3, 5), (2, 7, 6, 3), dict(rhs_dilation=(2, 1))),
    "grouped": ((3, 3, 1, 6), (2, 7, 6, 3), dict(feature_group_count=3)),
    "line": ((2, 3, 4), (2, 7, 3), {}),
    "volume": ((2, 1, 2, 2, 4), (2, 4, 3, 5, 2), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, tmp_path):
    kernel, shape, how = CONVOLUTIONS[name]
    space = "HWD"[: len(shape) - 2]
    orders = (f"N{space}C", f"{space}IO", f"N{space}C")
    how = {"window_strides": (1,) * len(space), **how}

    def f(w, x):
        y = lax.conv_general_dilated(
            x, w, padding="SAME", dimension_numbers=orders, **how
        )
        return y * 2 + jnp.arange(1.0, w.shape[-1] + 1).reshape(
            (1,) * (x.ndim - 1) + (-1,)
        )

    exported.check(
        f, exported.data(*kernel), exported.data(*shape), tmp_path / "one.onnx"
    )


POOLINGS = {
    "flax_max": lambda x: nn.max_pool(x, (3, 2), (2, 2), padding="SAME"),
    "flax_mean": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "one_axis": lambda x: jnp.maximum(x[:, :-1:2], x[:, 1::2]),
    "overlapping": lambda x: jnp.maximum(jnp.maximum(x[:, :4], x[:, 1:5]), x[:, 2:6]),
    "not_from_the_start": lambda x: jnp.maximum(x[:, :, 1:-1:2], x[:, :, 2::2]),
    "a_corner_is_missing": lambda x: jnp.maximum(
        jnp.maximum(x[:, ::2, ::2], x[:, 1::2, 1::2]), x[:, ::2, 1::2]
    ),
    "of_two_things": lambda x: jnp.maximum(x[:, ::2], (-x)[:, 1::2]),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings(name, tmp_path):
    path = tmp_path / "one.onnx"
    exported.check(lambda _, x: POOLINGS[name](x), {}, exported.data(2, 6, 6, 3), path)
    pools = {"a_corner_is_missing": 0, "of_two_things": 0, "flax_mean": 0}
    assert exported.written(path)["MaxPool"] == pools.get(name, 1)


NUMBER = st.integers(0, 5)


@hypothesis.settings(max_examples=10)
@hypothesis.given(
    st.lists(
        st.tuples(st.integers(1, 2), NUMBER, NUMBER, st.integers(1, 3)),
        min_size=1,
        max_size=3,
    )
)
def test_slices_of_slices(tmp_path_factory, cuts):
    def f(x):
        for axis, start, more, step in cuts:
            start %= x.shape[axis]
            end = start + 1 + more % (x.shape[axis] - start)
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        return x

    x = exported.data(2, 6, 6)
    path = tmp_path_factory.mktemp("slices") / "one.onnx"
    onnx_export.export(lambda _, x: f(x), {}, exported.spec(1, 6, 6), path=path)
    np.testing.assert_array_equal(exported.run(path, x)[0], f(x))
