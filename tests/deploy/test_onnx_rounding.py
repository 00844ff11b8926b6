"""Activations on other grids than 256 codes of a known range, against `numerics`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from lib import numerics, program, representations
from lib.deploy import onnx_export
from tests.deploy import exported
from tests.deploy.test_onnx_int8 import frozen_of

IDENTITY = representations.Quantized(
    np.eye(6, dtype=np.int8), np.ones((1, 6), np.float32), None, 8
)
GRIDS = [(8, True), (7, False), (5, True), (4, False), (2, True), (2, False)]


def settings(bits=8, symmetric=False, **more):
    return ((".", {"bits": bits, "symmetric": symmetric, **more}),)


def seen(f, ranges, rules, x, path):
    """Returns what the file gives for x, with the identity for a weight."""
    frozen = {"kernel": IDENTITY}
    example = exported.spec(1, *x.shape[1:])
    onnx_export.export_int8(f, frozen, example, ranges=ranges, rules=rules, path=path)
    assert onnx_export.contractions(path) == (0, 1)
    return exported.run(path, x)[0]


@pytest.mark.parametrize(
    ("bits", "symmetric"),
    [GRIDS[0], *(pytest.param(*g, marks=pytest.mark.slow) for g in GRIDS[1:])],
)
@pytest.mark.parametrize("positive", [False, True])
def test_a_grid_of_fewer_codes_is_exact(bits, symmetric, positive, tmp_path):
    """Saturated on both sides, with the identity behind it: one code more shows."""

    def f(params, x):
        return (nn.relu(x) if positive else x) @ params["kernel"]

    low, high = (np.float32(n) for n in (0 if positive else -1.3, 2.1))
    x = np.linspace(-7.123, 7.077, 600).astype(np.float32).reshape(100, 6)
    path = tmp_path / "x.onnx"
    found = seen(
        f, {"dot_general": {"lhs": (low, high)}}, settings(bits, symmetric), x, path
    )
    grid = numerics.grid(low, high, bits, symmetric=symmetric)
    expected = numerics.fake_quant(np.maximum(x, 0) if positive else x, grid)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    # Not one operator more where zero is the smallest code.
    assert onnx_export.operators(path)["Min"] == 1


def test_a_range_of_each_call(tmp_path):
    def f(params, x):
        return x @ params["kernel"]

    path = tmp_path / "x.onnx"
    rules = settings(range="dynamic")
    for scale in (1, 100):
        x = exported.data(9, 6) * scale
        found = seen(f, {}, rules, x, path)
        grid = numerics.grid(x.min(), x.max(), 8, symmetric=False)
        # The runtime divides by 255 where JAX multiplies: a code may be the next one.
        expected = np.asarray(numerics.fake_quant(x, grid))
        off = np.abs(found - expected) / grid.scale
        assert off.max() < 1.01 and (off > 0.01).mean() < 0.05


class Images(nn.Module):
    """Convolutions in groups, whole ones and relu6, and one that nothing rounds."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.Conv(8, (3, 3))(x) * 3)
        x = nn.relu6(nn.Conv(8, (3, 3), feature_group_count=8)(x) * 3)
        x = nn.relu6(nn.Conv(8, (1, 1))(x))
        x = nn.Conv(8, (3, 3), feature_group_count=4)(x)
        return nn.Dense(10)(x.mean((1, 2)))


RULES = {
    "affine": settings(),
    "symmetric": settings(symmetric=True),
    "few": settings(5),
    "dynamic": settings(range="dynamic"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_convolutions_in_groups_and_relu6(name, tmp_path):
    x = exported.data(64, 8, 8, 3) * 3
    f, params = exported.function(Images(), x)
    frozen, path = frozen_of(params), tmp_path / "x.onnx"
    how = {"ranges": {}, "rules": RULES[name]}
    if name != "dynamic":  # a range that clips
        thawed = representations.thaw(frozen)
        how["ranges"] = program.calibrate(f, thawed, [(x / 2,)], program.minmax())
    example = exported.spec(1, 8, 8, 3)
    onnx_export.export_int8(f, frozen, example, path=path, **how)
    found = onnx_export.verify(path, f, frozen, x, **how)
    ops = onnx_export.operators(path)
    whole = {row.site.partition("/")[2]: row.integer for row in found.rows}
    assert whole["Conv_0"] and whole["Conv_2"] and whole["Dense_0"]
    # In groups it is integers only where the result is rounded.
    assert whole["Conv_1"] == (name != "dynamic") and not whole["Conv_3"]
    if name != "dynamic":
        assert (ops["QLinearConv"], ops["Clip"], ops["Conv"]) == (3, 0, 1)


@pytest.mark.slow
def test_rounding_that_the_program_holds_itself(tmp_path):
    """As floats, to the last bit but the order of sums; scales may be of channels."""
    grid = numerics.grid(
        -jnp.arange(1.0, 5)[None], jnp.ones((1, 4)), 5, symmetric=False
    )

    def f(w, x):
        y = numerics.fake_quant(x.T.T, grid)
        ends = y.min(1, keepdims=True), y.max(1, keepdims=True)
        spread = numerics.grid(*ends, 4, symmetric=True)
        return numerics.fake_quant(y, spread) @ w

    exported.check(f, exported.data(4, 3), exported.data(8, 4), tmp_path / "x.onnx")
