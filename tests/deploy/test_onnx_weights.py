"""Weights alone in few bits, factors, and tables of rows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, program, representations, transforms, tree
from lib.deploy import onnx_export
from tests.deploy import exported
from tests.deploy.test_onnx_int8 import ALL, EIGHT, quantized

HOW = {
    "channel": dict(bits=4),
    "tensor": dict(bits=3, granularity="tensor"),
    "groups": dict(bits=4, granularity="group", group=32),
    "affine_groups": dict(bits=4, granularity="group", group=16, symmetric=False),
    "eight": dict(bits=8),
    "affine_eight": dict(bits=8, symmetric=False),
}


def dense(params, x):
    with jax.named_scope("dense"):
        return nn.relu(x @ params["kernel"] * 2 + params["bias"][None])


@pytest.mark.parametrize(
    "name",
    [
        "affine_groups",
        *(pytest.param(n, marks=pytest.mark.slow) for n in HOW if n != "affine_groups"),
    ],
)
def test_a_weight_of_few_bits(name, tmp_path):
    rows = 96 if "group" in HOW[name] else 100
    params = {"kernel": exported.data(rows, 5), "bias": exported.data(5)}
    technique = transforms.quantize(**HOW[name])
    frozen = technique.freeze(*technique.encode(params))
    x, path = exported.data(64, rows), tmp_path / "x.onnx"
    expected = dense(representations.thaw(frozen), x)
    for accuracy, close in ((1, 1e-5), (4, 0.02)):
        onnx_export.export_weight_only(
            dense, frozen, exported.spec(1, rows), accuracy=accuracy, path=path
        )
        assert onnx_export.operators(path)["MatMulNBits"] == 1
        off = np.abs(exported.run(path, x)[0] - expected).max()
        assert off < close * np.abs(expected).max()


@pytest.mark.slow
def test_files_of_four_bits_are_small(tmp_path):
    path = tmp_path / "x.onnx"
    f, params = exported.model("mlp", widths=(256, 128))
    example = exported.spec(1, *exported.SHAPE)
    whole = onnx_export.export(f, params, example, path=path)
    technique = transforms.quantize(bits=4, granularity="group", group=64)
    frozen = technique.freeze(*technique.encode(params))
    length = onnx_export.export_weight_only(f, frozen, example, path=path)
    assert length < whole / 6
    x = exported.data(128, *exported.SHAPE)
    found = onnx_export.verify(path, f, frozen, x)
    assert [row.operators for row in found.rows] == [("MatMulNBits",)] * 3


@pytest.mark.slow
def test_projections_of_heads_and_what_fits_no_block(tmp_path):
    """Rows of a weight are what is summed, wherever those axes stand."""

    def f(params, x):
        y = jnp.einsum("bxi,ihd->bxhd", x, params["in"])
        y = jnp.einsum("bxhd,hdo->bxo", y, params["out"])
        return y @ params["narrow"]

    params = {
        "in": exported.data(32, 4, 8),
        "out": exported.data(4, 8, 20),
        "narrow": exported.data(20, 3),
    }
    rows = quantized(params["narrow"], axes=(1,), bits=4)  # a scale for each row
    frozen = {k: quantized(w, bits=4) for k, w in params.items()} | {"narrow": rows}
    frozen["in"] = representations.sparse(params["in"] > 0, frozen["in"])
    x, path = exported.data(16, 3, 32), tmp_path / "x.onnx"
    example = exported.spec(1, 3, 32)
    onnx_export.export_weight_only(f, frozen, example, accuracy=1, path=path)
    assert onnx_export.operators(path)["MatMulNBits"] == 2
    expected = f(representations.thaw(frozen), x)
    np.testing.assert_allclose(exported.run(path, x)[0], expected, rtol=1e-4, atol=1e-4)


def test_nothing_to_store_in_few_bits_is_told(tmp_path):
    example, path = exported.spec(1, 8), tmp_path / "x.onnx"
    params = {"kernel": exported.data(8, 4), "bias": exported.data(4)}
    with pytest.raises(errors.UserError, match="no weight is stored as Quantized"):
        onnx_export.export_weight_only(dense, params, example, path=path)
    frozen = params | {"kernel": quantized(params["kernel"])}
    with pytest.raises(errors.UserError, match="accuracy is 1 or 4, got 2"):
        onnx_export.export_weight_only(dense, frozen, example, accuracy=2, path=path)


@pytest.mark.slow
def test_factors_run_one_by_one_in_integers(tmp_path):
    def f(params, x):
        with jax.named_scope("conv"):
            x = nn.relu(
                jax.lax.conv_general_dilated(
                    x,
                    params["conv"]["kernel"],
                    (1, 1),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            )
        with jax.named_scope("dense"):
            return x.reshape(x.shape[0], -1) @ params["dense"]["kernel"]

    def low_rank(u, v):
        return representations.LowRank(quantized(u), quantized(v))

    frozen = {
        "conv": {"kernel": low_rank(exported.data(3, 3, 8, 2), exported.data(2, 8))},
        "dense": {"kernel": low_rank(exported.data(128, 4), exported.data(4, 10))},
    }
    x, path = exported.data(128, 4, 4, 8), tmp_path / "x.onnx"
    params, g = program.keep_factors(f)(frozen, x), program.run_factored(f)
    ranges = program.calibrate(g, params, [(x,)], program.minmax())
    assert list(ranges) == ["conv", "conv#1", "dense", "dense#1"]
    how = {"ranges": ranges, "rules": ALL, "factored": True}
    onnx_export.export_int8(f, frozen, exported.spec(1, 4, 4, 8), path=path, **how)
    assert onnx_export.contractions(path) == (0, 4)
    found = onnx_export.verify(path, f, frozen, x, **how)
    assert all(row.integer for row in found.rows) and found.mean < 0.005
    # As a whole it has no codes.
    whole = program.calibrate(f, representations.thaw(frozen), [(x,)], program.minmax())
    with pytest.raises(errors.UserError, match="stored as LowRank"):
        onnx_export.export_int8(
            f, frozen, exported.spec(1, 4, 4, 8), path=path, ranges=whole, rules=ALL
        )


class Words(nn.Module):
    """An embedding, and the logits of its own words."""

    @nn.compact
    def __call__(self, words):
        embed = nn.Embed(300, 16)
        x = nn.Dense(16)(embed(words))
        return embed.attend(x.mean(1))


@pytest.mark.slow
def test_an_embedding_is_gathered_as_int8(tmp_path):
    words = np.random.default_rng(0).integers(0, 300, (64, 7)).astype(np.int32)
    f, params = exported.function(Words(), words)
    example, path = exported.spec(1, 7, dtype=np.int32), tmp_path / "x.onnx"
    exported.check(f, params, words, path)
    flat = tree.flatten(params)
    frozen = tree.unflatten(
        {p: quantized(w) if w.ndim > 1 else w for p, w in flat.items()}
    )
    rules = (("attend", None), (".", EIGHT))
    thawed = representations.thaw(frozen)
    ranges = program.calibrate(f, thawed, [(words,)], program.minmax())
    how = {"ranges": ranges, "rules": rules}
    onnx_export.export_int8(f, frozen, example, path=path, **how)
    found = onnx_export.verify(path, f, frozen, words, **how)
    assert [(row.planned, row.integer) for row in found.rows] == [
        (True, True),
        (False, False),
    ]
    nodes = {out: n.op_type for n in exported.nodes(path) for out in n.output}
    tables = [n for n in exported.nodes(path) if n.op_type == "Gather"]
    assert [exported.arrays(path)[n.input[0]].dtype for n in tables] == [np.int8]
    assert "DequantizeLinear" in nodes.values()
