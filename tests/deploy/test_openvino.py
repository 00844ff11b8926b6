"""The same files in OpenVINO, where it is installed (it is in no requirements file)."""

import collections

import jax
import numpy as np
import pytest

from lib import program, representations
from lib.deploy import onnx_export
from tests.deploy import exported
from tests.deploy.test_onnx_int8 import ALL, frozen_of
from tests.deploy.test_onnx_residual import residual

openvino = pytest.importorskip("openvino", reason="openvino is not installed")


def model(name):
    if name == "residual":
        return residual()
    f, params = exported.model(name)
    return f, frozen_of(params), exported.data(128, *exported.SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "points"), [("mlp", "inputs"), ("residual", "adds")])
def test_it_agrees_and_runs_in_integers(name, points, tmp_path):
    f, frozen, x = model(name)
    params, path = representations.thaw(frozen), tmp_path / "x.onnx"
    ranges = program.calibrate(f, params, [(x,)], program.minmax(), points=points)
    how = {"ranges": ranges, "rules": ALL, "points": points}
    example = exported.spec(1, *x.shape[1:])
    onnx_export.export_int8(f, frozen, example, path=path, **how)
    hint = {"INFERENCE_PRECISION_HINT": "f32"}  # else it may use bfloat16
    compiled = openvino.Core().compile_model(path, "CPU", hint)
    expected = np.asarray(jax.jit(program.fake_quantize(f, **how))(params, x))
    found = compiled(x)[0]
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.97
    assert np.abs(found - expected).mean() < 0.005 * np.abs(expected).max()
    kinds = collections.defaultdict(set)
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kinds[info["layerType"].astype(str)].add(info["runtimePrecision"].astype(str))
    products = {
        kind: kinds.pop(kind, set()) for kind in ("Convolution", "FullyConnected")
    }
    assert set.union(*products.values()) == {"u8"}
    # What is left stores, moves or rounds the input: the sums are the convolutions'.
    moves = {"Input", "Output", "Const", "Reshape", "Transpose", "Reorder"}
    assert set(kinds) <= {*moves, "FakeQuantize"}
