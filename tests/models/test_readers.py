"""Files of weights of each kind: what they hold, and how a damaged one is told."""

import json
import sys

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors
from lib.models import readers
from lib.models.readers import flax_file, hub, safetensors_file

RNG = np.random.default_rng(0)
ARRAYS = {
    "a.weight": RNG.normal(size=(3, 4)).astype(np.float32),
    "a.bias": RNG.normal(size=4).astype(np.float16),
    "count": np.int64(7),
    "none": np.zeros((0, 2), np.float32),
    "on": np.array([True, False]),
    "half": np.asarray(jnp.asarray([1.5, -2.0], jnp.bfloat16)),
}


def saved(path, arrays=ARRAYS, metadata=None):
    numpy = pytest.importorskip("safetensors.numpy", reason="writes the files")
    numpy.save_file({k: np.asarray(v) for k, v in arrays.items()}, path, metadata)
    return path


def same(found, wanted):
    assert set(found) == set(wanted)
    for name, entry in found.items():
        value = entry.read()
        assert entry.shape == value.shape == np.shape(wanted[name])
        assert value.dtype == np.asarray(wanted[name]).dtype
        np.testing.assert_array_equal(value, wanted[name])


def test_safetensors_are_those_that_its_own_library_writes(tmp_path):
    path = saved(tmp_path / "model.safetensors", metadata={"format": "np"})
    same(readers.read(path), ARRAYS)


def test_only_the_header_of_safetensors_is_read(tmp_path):
    path = saved(tmp_path / "m.safetensors", {"a": np.zeros(1000, np.float32)})
    entry = safetensors_file.read(path)["a"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(errors.UserError, match="cannot read 'a' of "):
        entry.read()
    with pytest.raises(errors.UserError, match="'a' is not where its header says"):
        safetensors_file.read(path)


def written(path, header, body=b""):
    head = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"no json", "damaged or no safetensors file"),
        ([], "no table of arrays"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "data_offsets"),
        ({"a": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}, "dtype 'F3'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "not where"),
        ({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, "not where"),
        ({"a": {"dtype": "U8", "shape": [-4], "data_offsets": [8, 4]}}, "not where"),
    ],
)
def test_damaged_safetensors_are_told_in_one_line(tmp_path, header, message):
    path = written(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises(errors.UserError, match=message) as e:
        readers.read(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_every_cut_safetensors_file_is_told(tmp_path):
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.UserError, match=r"m\.safetensors"):
            readers.read(path)


def test_a_file_in_parts(tmp_path):
    two = {"b.weight": np.ones((2, 2), np.float32)}
    saved(tmp_path / "model-1.safetensors")
    saved(tmp_path / "model-2.safetensors", two)
    places = dict.fromkeys(ARRAYS, "model-1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places["b.weight"] = "model-2.safetensors"
    index.write_text(json.dumps({"weight_map": places}))
    assert readers.locate(tmp_path) == index
    same(readers.read(index), {**ARRAYS, **two})
    for name, part, message in (
        ("c", "model-2.safetensors", "'c' is in model-2.safetensors, which does not"),
        ("c", "../model-2.safetensors", "no file beside it"),
        ("c", "model-3.safetensors", "cannot read .*model-3"),
    ):
        index.write_text(json.dumps({"weight_map": {**places, name: part}}))
        with pytest.raises(errors.UserError, match=message):
            readers.read(index)
    index.write_text("{}")
    with pytest.raises(errors.UserError, match="no table 'weight_map'"):
        readers.read(index)


def test_flax_files_have_paths_for_names(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    tree = {"params": {"dense": {"kernel": ARRAYS["a.weight"]}, "half": ARRAYS["half"]}}
    path.write_bytes(flax.serialization.msgpack_serialize(tree))
    wanted = {"params/dense/kernel": ARRAYS["a.weight"], "params/half": ARRAYS["half"]}
    same(readers.read(path), wanted)
    for bad in (b"", path.read_bytes()[:-20], flax.serialization.msgpack_serialize(3)):
        path.write_bytes(bad)
        with pytest.raises(errors.UserError, match="no Flax file of arrays"):
            readers.read(path)
    path.write_bytes(flax.serialization.msgpack_serialize({"a": "text"}))
    with pytest.raises(errors.UserError, match="its 'a' is a str"):
        readers.read(path)
    assert flax_file.torch_name("bert/layer/0/dense/kernel") == (
        "bert.layer.0.dense.weight"
    )


def test_a_folder_holds_weights_under_known_names(tmp_path):
    with pytest.raises(errors.UserError, match="holds no weights; expected one of mod"):
        readers.locate(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert readers.locate(tmp_path).name == "pytorch_model.bin"
    assert readers.about(tmp_path / "pytorch_model.bin") is None
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert readers.about(tmp_path / "pytorch_model.bin") == {"model_type": "bert"}
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(errors.UserError, match="config.json is damaged"):
        readers.about(tmp_path / "pytorch_model.bin")


def test_only_owner_and_name_may_be_fetched(tmp_path, monkeypatch):
    assert hub.is_name("google-bert/bert-base-uncased")
    for text in ("../weights", "./a/b", "/tmp/a", "a", "a/b/c", "~/a", "a//b", "a/..b"):
        assert not hub.is_name(text), text
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(errors.UserError, match="folder owner/name holds no weights"):
        readers.locate("owner/name")  # what is there is never fetched
    assert readers.locate("owner/name.npz").name == "name.npz"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.UserError, match="pip install huggingface_hub"):
        readers.locate("owner/other")


def test_without_a_network_a_name_is_told_in_one_line(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="fetches names")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError) as e:
        readers.locate("owner/name")
    assert "no file or folder 'owner/name'" in str(e.value)
    assert "\n" not in str(e.value)
