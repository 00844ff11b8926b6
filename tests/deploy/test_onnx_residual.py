"""Residual networks in integers: the sums too, where the points are "adds"."""

import flax.linen as nn
import jax
import pytest

from lib import program, representations
from lib.deploy import onnx_export
from tests.deploy import exported
from tests.deploy.test_onnx_int8 import ALL, frozen_of


class Residual(nn.Module):
    """Two blocks, the second of half the size with a projection, then a convolution."""

    @nn.compact
    def __call__(self, x):
        def conv(x, width, window=3, stride=1):
            x = nn.Conv(width, (window, window), stride, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(conv(x, 4))
        x = nn.relu(x + conv(nn.relu(conv(x, 4)), 4))
        y = conv(nn.relu(conv(x, 6, stride=2)), 6)
        x = nn.relu(y + conv(x, 6, window=1, stride=2))
        x = nn.relu(conv(x, 6, window=1))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


def residual():
    """Returns (f, frozen, x) of the network."""
    x = exported.data(128, 8, 8, 3)
    f, params = exported.function(Residual(), x)
    return f, frozen_of(params), x


def written(f, frozen, x, points, path):
    params = representations.thaw(frozen)
    ranges = program.calibrate(f, params, [(x,)], program.minmax(), points=points)
    how = {"ranges": ranges, "rules": ALL, "points": points}
    example = exported.spec(1, *x.shape[1:])
    onnx_export.export_int8(f, frozen, example, path=path, **how)
    return onnx_export.verify(path, f, frozen, x, **how)


def dense(params, x):
    with jax.named_scope("a"):
        x = nn.relu(x @ params["a"]["kernel"])
    with jax.named_scope("b"):
        x = x + x @ params["b"]["kernel"]
    return x @ params["c"]["kernel"]


def test_a_sum_between_two_products_is_one_of_integers(tmp_path):
    shapes = {"a": (8, 12), "b": (12, 12), "c": (12, 5)}
    params = {k: {"kernel": exported.data(*shape)} for k, shape in shapes.items()}
    path = tmp_path / "x.onnx"
    found = written(dense, frozen_of(params), exported.data(200, 8), "adds", path)
    assert [(row.site, row.operators) for row in found.rows] == [
        ("a", ("QGemm",)),
        ("b", ("QGemm",)),
        ("b/add", ("QLinearAdd",)),
        ("dot_general", ("QGemm",)),
    ]


@pytest.mark.slow
def test_with_points_at_the_sums_all_of_it_is_integers(tmp_path):
    f, frozen, x = residual()
    path = tmp_path / "adds.onnx"
    found = written(f, frozen, x, "adds", path)
    ops = onnx_export.operators(path)
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (7, 2, 1)
    assert not ops["Conv"] and not ops["FusedConv"] and not ops["Add"]
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"], ops["Relu"]) == (1, 0, 0)
    assert found.agreement >= 0.97 and found.mean < 0.005
    assert [r.operators for r in found.rows if r.primitive == "add"] == [
        ("QLinearAdd",),
        ("QLinearAdd",),
    ]
    assert all(row.planned and row.integer for row in found.rows)


@pytest.mark.slow
def test_without_them_the_sums_and_what_feeds_them_are_other_operators(tmp_path):
    f, frozen, x = residual()
    path = tmp_path / "inputs.onnx"
    found = written(f, frozen, x, "inputs", path)
    ops = onnx_export.operators(path)
    assert ops["QLinearAdd"] == 0 and ops["QLinearConv"] < 7
    assert all(row.integer for row in found.rows) and len(found.rows) == 8


@pytest.mark.slow
def test_a_shortcut_that_drops_pixels_and_adds_channels(tmp_path):
    """The codes are sliced and padded, so that one operator rounds for both readers."""
    f, params = exported.model("resnet")
    x = exported.data(128, *exported.SHAPE)
    path = tmp_path / "resnet.onnx"
    found = written(f, frozen_of(params), x, "adds", path)
    ops = onnx_export.operators(path)
    # Nothing rounds the mean behind the last sum.
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["Add"]) == (7, 2, 1)
    assert [row.integer for row in found.rows if row.primitive == "add"] == [
        True,
        True,
        False,
    ]
    assert found.agreement >= 0.97
