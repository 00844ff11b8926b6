import ast
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

from lib import errors, models, program, transforms
from lib.deploy import onnx_export
from tests.deploy import exported


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (16, 16, 1)),
        ("lenet5", (16, 16, 1)),
        ("lenet5", (19, 17, 3)),  # an odd row is left out of the pooling
        ("cnn", (16, 16, 1)),
        ("cnn", (13, 10, 3)),
        ("transformer", (16, 16, 1)),
        ("resnet", (16, 16, 1)),
        ("imagenet_resnet", (20, 17, 3)),
        ("wide_resnet", (16, 16, 1)),
        ("mobilenet_v1", (16, 16, 1)),
        ("mobilenet_v2", (17, 16, 1)),
        ("efficientnet_lite", (17, 16, 1)),
        ("vit", (16, 16, 1)),
    ],
)
def test_every_model_at_any_batch_from_one_file(name, shape, tmp_path):
    f, params = exported.model(name, shape)
    path = tmp_path / "deep" / "model.onnx"
    length = onnx_export.export(f, params, exported.spec(1, *shape), path=path)
    assert length == path.stat().st_size
    session = onnx_export.session(path)
    x = exported.data(8, *shape)
    expected = np.asarray(jax.jit(f)(params, x))
    for n in (1, 3, 8):
        (found,) = session.run(None, {"input": x[:n]})
        np.testing.assert_allclose(found, expected[:n], **exported.CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_models_of_text_at_any_batch(name, tmp_path):
    fields = dict(layers=1, width=16, heads=2, intermediate=24, vocabulary=20)
    fields |= {"encoder": dict(separator=1), "decoder": dict(pad=0)}[name]
    module = models.build(name, classes=3, **fields)
    ids = np.random.default_rng(0).integers(1, 20, (4, 7)).astype(np.int32)
    ids[1, 3:] = 0
    params, _ = exported.drawn(
        jax.eval_shape(lambda: models.init(module, jax.random.key(0), (7,), np.int32))
    )

    def f(params, ids):
        return module.apply({"params": params}, ids, train=False)[0]

    path = tmp_path / "text.onnx"
    exported.check(f, params, ids, path)
    ops = exported.written(path)
    assert (ops["Softmax"], ops["Gelu"], ops["LayerNormalization"]) == (1, 1, 3)


def test_every_model_there_is_was_tried():
    assert set(exported.MODELS) | {"encoder", "decoder"} == set(models.MODELS)


def test_batch_norm_and_transpositions_are_folded_away(tmp_path):
    path = tmp_path / "cnn.onnx"
    f, params = exported.model("cnn")
    onnx_export.export(f, params, exported.spec(1, *exported.SHAPE), path=path)
    ops = exported.written(path)
    assert ops == {
        "Transpose": 1,  # of the images
        "Conv": 3,
        "Relu": 3,
        "MaxPool": 2,
        "GlobalAveragePool": 1,
        "Squeeze": 1,
        "Gemm": 1,
        "Identity": 1,
    }
    f, params = exported.model("lenet5")
    onnx_export.export(f, params, exported.spec(1, *exported.SHAPE), path=path)
    # The flattening before the first dense layer turns its rows, not the images.
    assert exported.written(path)["Transpose"] == 1


def test_softmax_gelu_and_layer_norm_are_one_operator_each(tmp_path):
    path = tmp_path / "transformer.onnx"
    f, params = exported.model("transformer")
    onnx_export.export(f, params, exported.spec(1, *exported.SHAPE), path=path)
    ops = exported.written(path)
    assert (ops["Softmax"], ops["Gelu"], ops["LayerNormalization"]) == (1, 1, 3)
    parts = {"Exp", "Tanh", "Sqrt", "Relu", "Sub", "ReduceMax", "Unsqueeze"}
    assert not parts & set(ops)


def _norm(x, count=4, eps=1e-6):
    mean, squares = (y.sum(-1) / count for y in (x, x * x))
    variance = jnp.maximum(0.0, squares - mean * mean)
    scaled = lax.rsqrt(variance[..., None] + eps) * jnp.arange(4.0)[None, None]
    return (x - mean[..., None]) * scaled + jnp.ones((1, 1, 4))


def _swing(x, y):
    return y * (0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _share(x, axis):
    part = jnp.exp(x - jnp.maximum(-jnp.inf, x.max(-1))[..., None])
    return part / jnp.expand_dims(part.sum(axis), -1)


NEARLY = {  # f -> whether it is one of the three
    "norm": (_norm, True),
    "norm_of_another_count": (lambda x: _norm(x, 5), False),
    "norm_of_all_data": (
        lambda x: _norm(x, eps=abs(x).max((1, 2), keepdims=True)),
        False,
    ),
    "swing": (lambda x: _swing(x, x), True),
    "swing_by_erf": (lambda x: nn.gelu(x, approximate=False), True),
    "swing_by_another_erf": (lambda x: x * (0.5 * lax.erfc(-x * 0.7)), False),
    "swing_of_something_else": (lambda x: _swing(x, x + 1), False),
    "share": (lambda x: _share(x, -1), True),
    "share_along_another_axis": (lambda x: _share(x, 1), False),
}


@pytest.mark.parametrize("name", NEARLY)
def test_only_what_is_the_same_is_joined(name, tmp_path):
    f, joined = NEARLY[name]
    path = tmp_path / "one.onnx"
    exported.check(lambda _, x: f(x), {}, exported.data(3, 4, 4), path)
    ops = exported.written(path)
    found = ops["Softmax"] + ops["Gelu"] + ops["LayerNormalization"]
    assert found == joined


def test_names_and_shapes_of_the_file(tmp_path):
    path = tmp_path / "two.onnx"
    onnx_export.export(
        lambda p, x: {"a": x * p, "b": x.sum((1, 2)).astype(jnp.int32)},
        np.float32(3),
        exported.spec(7, 4, 5),
        path=path,
    )
    graph = onnx.load(path).graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    assert shapes == {
        "input": ["batch", 4, 5],
        "output_0": ["batch", 4, 5],
        "output_1": ["batch"],
    }


def test_a_gradient_is_a_program_too(tmp_path):
    params = exported.data(4, 3)

    def f(w, x):
        return jax.vmap(jax.grad(lambda row: jnp.tanh(row @ w).sum()))(x)

    exported.check(f, params, exported.data(5, 4), tmp_path / "gradient.onnx")


def test_two_users_of_a_contraction_do_not_share_their_constants(tmp_path):
    def f(w, x):
        y = x @ w
        return y * 2 + 1, nn.relu(y), (y - 3) / 4, 1 - y

    path = tmp_path / "one.onnx"
    exported.check(f, exported.data(4, 3), exported.data(5, 4), path)
    assert exported.written(path)["Gemm"] == 1


def test_equal_weights_are_stored_once_and_unused_ones_never(tmp_path):
    def f(params, x):
        nn.relu(x @ params["dead"])
        return (x @ params["a"]) @ params["b"]

    w = exported.data(32, 32)
    params = {"a": w, "b": w.copy(), "dead": w + 1}
    length = onnx_export.export(
        f, params, exported.spec(1, 32), path=tmp_path / "f.onnx"
    )
    assert w.nbytes < length < 1.5 * w.nbytes


UNSUPPORTED = {
    "primitive 'sort' has no rule at inner/scope": lambda x: jnp.sort(x),
    "primitive 'cumsum' has no rule": lambda x: jnp.cumsum(x, 1),
    "gather is at places that .* depend on data": lambda x: jnp.take_along_axis(
        x, (x > 0).astype(jnp.int32), 1
    ),
    "a slice cuts the batch|gather": lambda x: x[1:],
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_has_no_rule_is_named_with_its_place(message, tmp_path):
    def f(_, x):
        with jax.named_scope("inner"):
            return jax.jit(jax.named_call(UNSUPPORTED[message], name="scope"))(x)

    path = tmp_path / "none.onnx"
    with pytest.raises(errors.UserError, match=message) as told:
        onnx_export.export(f, {}, exported.spec(1, 4), path=path)
    assert "\n" not in str(told.value)
    assert not path.exists()


def test_a_function_of_one_batch_size_only_is_told(tmp_path):
    for f in (
        lambda _, x: x.reshape((8, -1)),
        lambda _, x: x if x.shape[0] > 4 else 2 * x,
    ):
        with pytest.raises(errors.UserError, match="no batch of any length") as told:
            onnx_export.export(f, {}, exported.spec(8, 4), path=tmp_path / "x.onnx")
        assert "\n" not in str(told.value)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(errors.UserError, match="requirements-deploy.txt") as told:
        onnx_export.export(lambda _, x: x, {}, exported.spec(1, 4), path=tmp_path / "x")
    assert "\n" not in str(told.value)


def test_a_file_that_is_no_model_is_one_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(errors.UserError, match="does not take"):
        onnx_export.session(tmp_path / "x.onnx")


def test_only_this_package_knows_of_onnx():
    lib = pathlib.Path(onnx_export.__file__).parents[2]
    for file in lib.rglob("*.py"):
        tree = ast.parse(file.read_text())
        named = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (getattr(node, "module", None), *(a.name for a in node.names))
        }
        assert not named & {"onnx", "onnxruntime"}, file
        if file.parent.name != "onnx_export":
            assert "lib.deploy.onnx_export" not in named, file


@pytest.mark.slow
@pytest.mark.parametrize("first", ["gelu", "softmax"])
def test_nodes_that_were_joined_lend_no_names(tmp_path, first):
    """A joined pattern takes nodes away, and what comes after counts on."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(5, (1, 3))(getattr(nn, first)(nn.Conv(4, (1, 2))(x)))

    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 4))
    params = Net().init(jax.random.key(1), x)["params"]
    t = transforms.quantize(bits=8)
    frozen = t.freeze(*jax.device_get(t.encode(params)))

    def f(params, x):
        return Net().apply({"params": params}, x)

    rules = [(".", {"bits": 8, "symmetric": False})]
    ranges = program.calibrate(f, params, [(x,)], program.minmax())
    path = tmp_path / "x.onnx"
    onnx_export.export_int8(f, frozen, x, ranges=ranges, rules=rules, path=path)
    found = onnx_export.session(path).run(None, {"input": np.asarray(x)})[0]
    dense = t.decode(*t.encode(params))
    wanted = program.fake_quantize(f, ranges, rules)(dense, x)
    assert np.abs(found - wanted).mean() < 0.02 * np.abs(wanted).max()
