"""Networks that end in a mean, in integers up to it where the points are "means"."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import program, representations
from lib.deploy import composites, onnx_export, stablehlo
from tests.deploy import exported
from tests.deploy.integers import EIGHT, frozen_of
from tests.deploy.test_onnx_residual import written

ALL = ((".", EIGHT),)


@pytest.mark.parametrize(
    "name", ["cnn", pytest.param("resnet", marks=pytest.mark.slow)]
)
def test_all_of_it_is_integers(name, tmp_path):
    f, params = exported.model(name)
    x = exported.data(128, *exported.SHAPE)
    path = tmp_path / "means.onnx"
    found = written(f, frozen_of(params), x, "means", path)
    ops = onnx_export.operators(path)
    convolutions, adds = {"cnn": (3, 0), "resnet": (7, 3)}[name]
    assert (ops["QLinearConv"], ops["QLinearAdd"]) == (convolutions, adds)
    assert (ops["QLinearGlobalAveragePool"], ops["QGemm"]) == (1, 1)
    # Of the images, and nothing else.
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 0)
    floats = {"Add", "Conv", "FusedConv", "MatMul", "ReduceSum", "Relu", "Concat"}
    assert not floats & set(ops)
    assert all(row.planned and row.integer for row in found.rows)
    means = [row for row in found.rows if row.primitive == "reduce_sum"]
    assert [row.operators for row in means] == [("QLinearGlobalAveragePool",)]
    assert found.agreement >= 0.97 and found.mean < 0.005


def test_it_is_the_rounded_function(tmp_path):
    f, params = exported.model("cnn")
    frozen, x = frozen_of(params), exported.data(256, *exported.SHAPE)
    path = tmp_path / "means.onnx"
    written(f, frozen, x, "means", path)
    (found,) = exported.run(path, x)
    expected = _rounded(f, frozen, x)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(found - expected).mean() < 0.002 * np.abs(expected).max()
    (one,) = exported.run(path, x[:1])
    np.testing.assert_allclose(one, found[:1], rtol=1e-5, atol=1e-6)


def _how(f, frozen, x):
    """Returns (dense params, how they are rounded)."""
    params = representations.thaw(frozen)
    ranges = program.calibrate(f, params, [(x,)], program.minmax(), points="means")
    return params, {"ranges": ranges, "rules": ALL, "points": "means"}


def _rounded(f, frozen, x):
    params, how = _how(f, frozen, x)
    return np.asarray(jax.jit(program.fake_quantize(f, **how))(params, x))


@pytest.mark.slow
def test_other_formats_have_the_same_points(tmp_path):
    """The points are equations of one program: integers and composites read it too."""
    f, params = exported.model("cnn")
    frozen, x = frozen_of(params), exported.data(16, *exported.SHAPE)
    expected = _rounded(f, frozen, x)
    _, how = _how(f, frozen, x)
    path = tmp_path / "means.stablehlo"
    example = exported.spec(1, *exported.SHAPE)
    stablehlo.export_integer(f, frozen, example, path=path, **how)
    assert stablehlo.contractions(path) == (0, 4)
    close = {"rtol": 0, "atol": 0.02 * np.abs(expected).max()}
    np.testing.assert_allclose(stablehlo.load(path)(x), expected, **close)
    shape = exported.spec(*x.shape)
    made = composites.composed(f, frozen, shape, batches=[x], **how)
    # The last convolution's result is rounded for the mean; only logits are left.
    assert [name.rpartition("/")[2] for name in made.results] == ["logits"]
    np.testing.assert_allclose(made.run(x), expected, **close)
    text = jax.jit(made.run).lower(x).as_text()
    # Three inputs of convolutions, the mean's, the dense layer's, the logits; weights.
    assert text.count('composite "quant.fake_quant"') == 3 + 1 + 1 + 1 + 4


@pytest.mark.slow
def test_windows_that_are_averaged_are_rounded_before(tmp_path):
    class Windows(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.avg_pool(nn.relu(nn.Conv(8, (3, 3))(x)), (2, 2), (2, 2))
            return nn.Dense(5)(x.reshape(x.shape[0], -1))

    x = exported.data(128, 8, 8, 3)
    f, params = exported.function(Windows(), x)
    path = tmp_path / "windows.onnx"
    found = written(f, frozen_of(params), x, "means", path)
    ops = onnx_export.operators(path)
    assert (ops["QLinearConv"], ops["QGemm"], ops["Concat"]) == (1, 1, 0)
    assert [row.planned for row in found.rows] == [True] * 3
    assert found.mean < 0.005


def conv(w, x):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


SUMS = {  # what is made of a convolution's result, and the operators of it
    "mean": (lambda y: y.mean((1, 2)), {"GlobalAveragePool", "Squeeze"}),
    "kept_axes": (lambda y: y.mean((1, 2), keepdims=True), {"ReduceSum", "Div"}),
    "sum": (lambda y: y.sum((1, 2)), {"ReduceSum"}),
    "another_share": (lambda y: y.sum((1, 2)) / 7, {"ReduceSum", "Div"}),
    "upside_down": (lambda y: 30 / (1e3 + y.sum((1, 2))), {"ReduceSum", "Div", "Add"}),
    "rows": (lambda y: y.mean(1), {"ReduceSum", "Div"}),
    "channels": (lambda y: y.mean(3), {"ReduceSum", "Div"}),
    "used_twice": (
        lambda y: (y.sum((1, 2)), y.sum((1, 2)) / 30),
        {"ReduceSum", "GlobalAveragePool", "Squeeze"},
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_in_float(name, tmp_path):
    make, operators = SUMS[name]
    path = tmp_path / "sums.onnx"
    w = exported.data(3, 3, 3, 4)
    exported.check(lambda w, x: make(conv(w, x)), w, exported.data(3, 6, 5, 3), path)
    made = {"ReduceSum", "Div", "Add", "GlobalAveragePool", "Squeeze", "Reshape"}
    assert made & set(exported.written(path)) == operators


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_colours_of_a_normalisation_are_one_run(channels, tmp_path):
    path = tmp_path / "pixels.onnx"
    shift, scale = exported.data(channels), exported.data(channels, seed=2)

    def f(params, x):
        x = x.astype(jnp.float32)
        return (x - shift[None, None, None]) * scale[None, None, None]

    x = np.random.default_rng(0).integers(0, 256, (3, 4, 7, channels), np.uint8)
    exported.check(f, {}, x, path)
    shapes = {array.shape for array in exported.arrays(path).values()}
    # Of three, rows are repeated until a run has 64 numbers at least.
    assert shapes == {(1, 4, 7, 3) if channels == 3 else (1, 1, 1, channels)}
