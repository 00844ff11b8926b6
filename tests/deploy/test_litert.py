"""The JAX side is tested everywhere; files where `requirements-litert.txt` is there."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, program, representations
from lib.deploy import litert
from tests.deploy.integers import EIGHT, frozen_of, quantized

RULES = ((".", EIGHT),)
RNG = np.random.default_rng(0)


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def network(params, pixels):
    """A convolution, a pooling, two dense layers; biases, relus and a mean."""
    x = pixels.astype(jnp.float32) / 255
    with jax.named_scope("conv"):
        x = jax.lax.conv_general_dilated(
            x,
            params["conv"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    x = jax.nn.relu(x + params["conv"]["bias"])
    x = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    x = x.reshape(x.shape[0], -1)
    with jax.named_scope("hidden"):
        x = x @ params["hidden"]["kernel"]
    x = jax.nn.gelu(x + params["hidden"]["bias"])
    with jax.named_scope("out"):
        return x @ params["out"]["kernel"] + params["out"]["bias"]


def made():
    params = {
        "conv": {"kernel": data(3, 3, 2, 8) / 4, "bias": data(1, 1, 1, 8) / 9},
        "hidden": {"kernel": data(128, 24) / 12, "bias": data(1, 24) / 9},
        "out": {"kernel": data(24, 5) / 5, "bias": data(1, 5)},
    }
    frozen = frozen_of(params)
    x = RNG.integers(0, 256, (12, 8, 8, 2)).astype(np.uint8)
    dense = representations.thaw(frozen)
    ranges = program.calibrate(network, dense, [(x,)], program.minmax())
    return frozen, dense, ranges, x


@pytest.mark.slow
def test_what_a_file_computes_is_the_fake_quantized_function():
    frozen, dense, ranges, x = made()
    how = {"ranges": ranges, "rules": RULES}
    expected = jax.jit(program.fake_quantize(network, ranges, RULES))(dense, x)
    plain = litert.simulated(network, frozen, x, **how)
    np.testing.assert_array_equal(jax.jit(plain)(x), expected)
    # The result of `conv` is rounded behind its relu and pooling; before the GELU, and
    # at the end, nothing rounds it but what is added.
    with_results = litert.simulated(network, frozen, x, **how, batches=(x[:6], x[6:]))
    text = jax.jit(with_results).lower(x).as_text()
    points = text.count('composite "quant.fake_quant"')
    assert points == 3 + 3 + 2
    found = np.asarray(jax.jit(with_results)(x))
    steps = np.unique(np.diff(np.unique(found)).round(6))
    width = found.max() - found.min()
    assert 0 < np.abs(found - expected).max() < 0.05 * width
    assert np.allclose(steps / steps[0], np.rint(steps / steps[0]), atol=0.02)


def says(message, call, *args, **kwargs):
    with pytest.raises(errors.UserError, match=message) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def dot(params, x):
    return x @ params["kernel"]


def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch):
    x = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    ranges = {"dot_general": {"lhs": (np.float32(-1), np.float32(1))}}
    frozen = {"kernel": quantized(data(6, 3))}

    def refused(message, frozen, settings, ranges=ranges, f=dot):
        says(
            message,
            litert.simulated,
            f,
            frozen,
            x,
            ranges=ranges,
            rules=((".", settings),),
        )

    refused("rounded to 4 bits, expected 8", frozen, {"bits": 4, "symmetric": True})
    refused("'dynamic', expected 'static'", frozen, {**EIGHT, "range": "dynamic"}, {})
    refused("round no activation", frozen, None, {})
    refused("stored as Dense, expected Quantized", {"kernel": data(6, 3)}, EIGHT)
    rows = quantized(data(3, 6))
    turned = representations.Quantized(rows.codes.T, rows.scale.T, None, 8)
    both = representations.Quantized(
        turned.codes, np.ones((6, 3), np.float32) * data(6, 3), None, 8
    )
    refused("scales along 2 axes", {"kernel": both}, EIGHT)

    def loop(params, x):
        return jax.lax.scan(lambda x, _: (dot(params, x), None), x, None, length=2)[0]

    square = {"kernel": quantized(data(6, 6))}
    ends = np.ones(2, np.float32)
    refused(
        "inside a scan, expected a program without loops",
        square,
        EIGHT,
        {"dot_general": {"lhs": (-ends, ends)}},
        loop,
    )
    monkeypatch.setitem(sys.modules, "litert_converter.converter_api_ext", None)
    monkeypatch.setitem(sys.modules, "litert_converter", None)
    path = tmp_path / "m.tflite"
    says("pip install -r requirements-litert.txt", litert.export, jnp.sin, x, path=path)
    says(
        "pip install -r requirements-litert.txt",
        litert.export_int8,
        dot,
        frozen,
        x,
        ranges=ranges,
        rules=RULES,
        path=path,
    )


@pytest.mark.slow
def test_a_file_agrees_and_runs_in_integers(tmp_path):
    why = "needs requirements-litert.txt"
    pytest.importorskip("litert_converter", reason=why)
    pytest.importorskip("ai_edge_litert", reason=why)
    frozen, dense, ranges, x = made()
    example = jax.ShapeDtypeStruct((4, *x.shape[1:]), x.dtype)
    floats, integers = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    litert.export(lambda x: network(dense, x), example, path=floats)
    assert litert.contractions(floats) == (3, 0)
    expected = np.asarray(jax.jit(network)(dense, x))
    # 10 are no multiple of the file's batch.
    np.testing.assert_allclose(
        litert.session(floats)(x[:10]), expected[:10], rtol=1e-5, atol=1e-5
    )
    how = {"ranges": ranges, "rules": RULES}
    for batches, counted in (((), (2, 1)), ((x,), (0, 3))):
        size = litert.export_int8(
            network, frozen, example, path=integers, batches=batches, **how
        )
        assert size == integers.stat().st_size
        assert litert.contractions(integers) == counted
        run = jax.jit(litert.simulated(network, frozen, x, batches=batches, **how))
        simulated = np.asarray(run(x))
        found = litert.session(integers)(x)
        # A value on the edge between two codes goes either way, seldom.
        width = np.abs(simulated).max()
        assert np.abs(found - simulated).max() < 0.02 * width
        assert np.abs(found - simulated).mean() < 0.003 * width
    integers.write_bytes(b"no flatbuffer at all")
    says("LiteRT does not take", litert.session, integers)
    says("cannot read", litert.session, tmp_path / "none")
