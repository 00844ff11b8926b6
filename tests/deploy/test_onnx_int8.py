import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen as nn
from jax import lax

from lib import errors, numerics, program, representations, transforms, tree
from lib.deploy import onnx_export
from tests.deploy import exported

EIGHT = {"bits": 8, "symmetric": False}
ALL = ((".", EIGHT),)


def quantized(w, axes=None, bits=8):
    """Returns a weight on a symmetric grid, one scale for all that `axes` span."""
    axes = tuple(range(w.ndim - 1)) if axes is None else axes
    high = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(axes, keepdims=True) / np.float32(high)
    codes = np.rint(w / scale).astype(np.int8)
    return representations.Quantized(codes, scale, None, bits)


def frozen_of(params, **how):
    """Returns the params with each kernel quantized."""
    flat = tree.flatten(params)
    return tree.unflatten(
        {p: quantized(w, **how) if "kernel" in p else w for p, w in flat.items()}
    )


def calibrated(f, frozen, x, rules=ALL):
    """Returns (params, ranges, the fake-quantized function)."""
    params = representations.thaw(frozen)
    ranges = program.calibrate(f, params, [(x,)], program.minmax())
    return params, ranges, jax.jit(program.fake_quantize(f, ranges, rules))


def write(f, frozen, x, ranges, path, rules=ALL):
    example = exported.spec(1, *x.shape[1:])
    return onnx_export.export_int8(
        f, frozen, example, ranges=ranges, rules=rules, path=path
    )


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "cnn",
        pytest.param("lenet5", marks=pytest.mark.slow),
        pytest.param("resnet", marks=pytest.mark.slow),
        pytest.param("transformer", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),  # relu6
        pytest.param("efficientnet_lite", marks=pytest.mark.slow),  # pads unevenly
        pytest.param("vit", marks=pytest.mark.slow),
    ],
)
def test_every_model_agrees_and_runs_in_integers(name, tmp_path):
    f, params = exported.model(name)
    frozen = frozen_of(params)
    x = exported.data(256, *exported.SHAPE)
    params, ranges, rounded = calibrated(f, frozen, x)
    path = tmp_path / "int8.onnx"
    write(f, frozen, x, ranges, path)
    expected = np.asarray(rounded(params, x))
    (found,) = exported.run(path, x)
    # A value on the edge between two codes goes either way, seldom.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(found - expected).mean() < 0.002 * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.98
    (one,) = exported.run(path, x[:1])
    np.testing.assert_allclose(one, found[:1], rtol=1e-5, atol=1e-6)
    sites = len(program.sites(f)(params, x))
    assert onnx_export.contractions(path) == (0, sites)


def test_the_check_finds_what_stays_in_float(tmp_path):
    f, params = exported.model("mlp")
    frozen = frozen_of(params)
    x = exported.data(64, *exported.SHAPE)
    rules = (("logits", None), (".", EIGHT))
    params, ranges, rounded = calibrated(f, frozen, x, rules)
    path = tmp_path / "int8.onnx"
    write(f, frozen, x, ranges, path, rules)
    assert onnx_export.contractions(path) == (1, 2)
    (found,) = exported.run(path, x)
    np.testing.assert_allclose(found, rounded(params, x), atol=0.02)
    # And a file whose activations are rounded but whose result is no integer's.
    onnx_export.export(rounded, params, exported.spec(1, *exported.SHAPE), path=path)
    assert onnx_export.contractions(path) == (3, 0)


def test_on_the_grid_it_is_exact(tmp_path):
    """Inputs that are points of the grid: nothing can be rounded another way."""
    w, b = exported.data(6, 5), exported.data(5)
    frozen = frozen_of({"kernel": w}) | {"bias": b}
    low, high = np.float32(-1.5), np.float32(2.0)
    grid = numerics.grid(low, high, 8, symmetric=False)
    codes = np.random.default_rng(0).integers(0, 256, (9, 6))
    x = ((codes - np.asarray(grid.zero_point)) * np.asarray(grid.scale)).astype("f4")

    def f(params, x):
        return x @ params["kernel"] + params["bias"][None]

    (site,) = program.sites(f)(representations.thaw(frozen), x)
    path = tmp_path / "int8.onnx"
    write(f, frozen, x, {site.name: {"lhs": (low, high)}}, path)
    exact = x.astype("f8") @ representations.thaw(frozen)["kernel"].astype("f8") + b
    # The bias is rounded to whole products of the two scales.
    step = float(grid.scale) * frozen["kernel"].scale.max()
    found = exported.run(path, x)[0]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=step / 2 + 1e-5)
    # And beyond the range it saturates, as fake_quant does.
    far = np.full((1, 6), 100, np.float32)
    expected = program.fake_quantize(f, {site.name: {"lhs": (low, high)}}, ALL)
    found = exported.run(path, far)[0]
    np.testing.assert_allclose(
        found, expected(representations.thaw(frozen), far), rtol=1e-5, atol=step
    )


def test_scales_and_codes_in_the_file(tmp_path):
    f, params = exported.model("mlp")
    frozen = frozen_of(params)
    x = exported.data(64, *exported.SHAPE)
    params, ranges, _ = calibrated(f, frozen, x)
    path = tmp_path / "int8.onnx"
    length = write(f, frozen, x, ranges, path)
    graph = onnx.load(path).graph
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    points = [n for n in graph.node if n.op_type == "QuantizeLinear"]
    assert len(points) == len(ranges) == 3
    for node, sides in zip(points, ranges.values(), strict=True):
        grid = numerics.grid(*sides["lhs"], 8, symmetric=False)
        scale, zero = (arrays[name] for name in node.input[1:])
        assert (scale.dtype, zero.dtype, scale.shape) == (np.float32, np.uint8, ())
        assert scale.tobytes() == np.asarray(grid.scale).tobytes()
        assert zero == np.asarray(grid.zero_point)
    kernels = [
        rep.codes
        for rep in jax.tree.leaves(
            frozen, is_leaf=lambda x: isinstance(x, representations.Representation)
        )
        if isinstance(rep, representations.Quantized)
    ]
    stored = {a.tobytes() for a in arrays.values() if a.dtype == np.int8}
    assert {k.tobytes() for k in kernels} <= stored
    plain = tmp_path / "float.onnx"
    whole = onnx_export.export(f, params, exported.spec(1, *exported.SHAPE), path=plain)
    assert length < 0.4 * whole


def conv(params, x):
    """A convolution, scaled and shifted by channel, and rounded or not behind it."""
    y = lax.conv_general_dilated(
        x,
        params["kernel"],
        (2, 1),
        "SAME",
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y * params["scale"][None, None, None] + params["bias"][None, None, None]
    if "head_kernel" not in params:
        return y
    return nn.relu(y).reshape((x.shape[0], -1)) @ params["head_kernel"]


@pytest.mark.parametrize("head", [False, True])
def test_channels_scaled_by_anything(head, tmp_path):
    """Negative, zero and tiny scales are folded into int8 codes and int32 biases."""
    x = exported.data(64, 6, 5, 3)
    params = {
        "kernel": exported.data(3, 2, 3, 6),
        "scale": np.float32([1, -2, 0, 1e-12, -1e-38, 0.5]),
        "bias": np.float32([0.3, -0.2, 5, 7, -3, 0]),
    }
    if head:
        params["head_kernel"] = exported.data(3 * 5 * 6, 4)
    frozen = frozen_of(params)
    params, ranges, rounded = calibrated(conv, frozen, x)
    path = tmp_path / "int8.onnx"
    write(conv, frozen, x, ranges, path)
    expected = np.asarray(rounded(params, x))
    bound = 0.02 * np.abs(expected).max() if head else 0.05
    assert np.abs(exported.run(path, x)[0] - expected).max() < bound
    counted = onnx_export.operators(path)
    assert counted["QLinearConv"] == head  # else there is nothing that rounds it
    assert onnx_export.contractions(path) == (0, 1 + head)


def dense(params, x):
    with jax.named_scope("dense"):
        return x @ params["kernel"]


def check_dense(rep, tmp_path):
    x = exported.data(64, 8)
    params, ranges, rounded = calibrated(dense, {"kernel": rep}, x)
    path = tmp_path / "int8.onnx"
    write(dense, {"kernel": rep}, x, ranges, path)
    (found,) = exported.run(path, x)
    np.testing.assert_allclose(found, rounded(params, x), atol=0.05)
    assert onnx_export.contractions(path) == (0, 1)


def test_one_scale_for_all_fewer_bits_and_a_mask_do_as_well(tmp_path):
    w = exported.data(8, 4)
    check_dense(quantized(w, axes=(0, 1)), tmp_path)
    check_dense(representations.sparse(w > 0, quantized(w, bits=4)), tmp_path)
    four = quantized(w, bits=4)
    affine = dataclasses.replace(
        four,
        codes=(four.codes + 8).astype(np.uint8),
        zero_point=np.full_like(four.scale, 8, np.uint8),
    )
    check_dense(affine, tmp_path)
    check_dense(representations.sparse(w > 0, affine), tmp_path)


@pytest.mark.slow
def test_what_the_techniques_freeze(tmp_path):
    for how in (
        transforms.quantize(bits=8, granularity="tensor"),
        transforms.chain(transforms.prune(sparsity=0.5), transforms.quantize(bits=4)),
    ):
        frozen = how.freeze(*how.encode({"kernel": exported.data(8, 4)}))
        check_dense(frozen["kernel"], tmp_path)


def test_a_convolution_that_is_also_given_back(tmp_path):
    """Its second user wants floats, so that it cannot be rounded as it is written."""

    def f(params, x):
        y = conv(params, x)
        return y, y.reshape((x.shape[0], -1)) @ params["last_kernel"]

    x = exported.data(64, 6, 5, 3)
    frozen = frozen_of(
        {
            "kernel": exported.data(3, 2, 3, 6),
            "scale": exported.data(6),
            "bias": exported.data(6),
            "last_kernel": exported.data(3 * 5 * 6, 4),
        }
    )
    params, ranges, rounded = calibrated(f, frozen, x)
    path = tmp_path / "int8.onnx"
    write(f, frozen, x, ranges, path)
    for found, expected in zip(exported.run(path, x), rounded(params, x), strict=True):
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert onnx_export.contractions(path) == (0, 2)


def test_a_gemm_before_an_activation_stays_whole(tmp_path):
    """The runtime would join the two before it looks for integers."""

    def f(params, x):
        return nn.relu(dense(params, x) + params["bias"][None])

    x = exported.data(64, 8)
    frozen = frozen_of({"kernel": exported.data(8, 4), "bias": exported.data(4)})
    params, ranges, rounded = calibrated(f, frozen, x)
    path = tmp_path / "int8.onnx"
    write(f, frozen, x, ranges, path)
    (found,) = exported.run(path, x)
    np.testing.assert_allclose(found, rounded(params, x), atol=0.05)
    assert onnx_export.contractions(path) == (0, 1)


def refused(message, f, frozen, x, tmp_path, *, ranges=None, rules=ALL):
    params = representations.thaw(frozen)
    if ranges is None:
        ranges = program.calibrate(f, params, [(x,)], program.minmax())
    with pytest.raises(errors.UserError, match=message) as told:
        write(f, frozen, x, ranges, tmp_path / "int8.onnx", rules)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "int8.onnx").exists()


def test_what_integer_kernels_do_not_take_is_told(tmp_path):
    params, f = {"kernel": exported.data(8, 4)}, dense
    x = exported.data(16, 8)
    frozen = frozen_of(params)
    rep = frozen["kernel"]
    affine = dataclasses.replace(
        rep,
        codes=rep.codes.astype(np.uint8),
        zero_point=np.zeros_like(rep.scale, np.uint8),
    )
    groups = np.ones((2, 1, 4), np.float32)
    grouped = dataclasses.replace(rep, scale=groups, group=4)
    rows = dataclasses.replace(rep, scale=np.ones((8, 1), np.float32))
    for weight, what in (
        (affine, "has an affine grid"),
        (grouped, "has a scale for each group of 4"),
        (rows, "has more than one scale a channel"),
    ):
        refused(rf"dense .* {what}", f, {"kernel": weight}, x, tmp_path)
    refused("stored as Dense; quantize it", f, params, x, tmp_path)
    for settings in (
        {"bits": 8, "symmetric": False, "range": "token"},
        {"bits": 8, "symmetric": True, "range": "dynamic"},
        {"bits": 4, "symmetric": False, "range": "dynamic"},
    ):
        rules, told = (("dense", settings),), f"dense on a {settings['range']} range"
        refused(told, f, frozen, x, tmp_path, ranges={}, rules=rules)
    refused("round no activation", f, frozen, x, tmp_path, rules=((".", None),))
    # What fake_quantize judges is judged the same way.
    refused("has no range", f, frozen, x, tmp_path, ranges={})
    refused("matches nothing", f, frozen, x, tmp_path, rules=(("conv", EIGHT),))

    def transposed(params, x):
        return x @ jnp.sin(params["kernel"])

    refused("is computed in the program", transposed, frozen, x, tmp_path)


def test_a_tied_weight_is_quantized_where_it_stands(tmp_path):
    params = {
        "a": {"kernel": exported.data(8, 8)},
        "b": {"kernel": exported.data(8, 8)},
    }
    frozen = frozen_of(params)
    frozen["b"]["kernel"] = representations.Tied("a/kernel")

    def f(params, x):
        return nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]

    x = exported.data(32, 8)
    dense, ranges, rounded = calibrated(f, frozen, x)
    write(f, frozen, x, ranges, tmp_path / "int8.onnx")
    arrays = onnx.load(tmp_path / "int8.onnx").graph.initializer
    shapes = collections.Counter(tuple(a.dims) for a in arrays)
    assert shapes[8, 8] == 1
    (found,) = exported.run(tmp_path / "int8.onnx", x)
    np.testing.assert_allclose(found, rounded(dense, x), atol=0.1)
