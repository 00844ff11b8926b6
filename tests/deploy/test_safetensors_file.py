import json
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from lib import errors, representations, tree
from lib.deploy import safetensors_file
from tests.deploy import exported
from tests.deploy.integers import quantized

data = exported.data


def affine(bits, group=0):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (6, 5)).astype(np.uint8)
    shape = (6 // group, 1, 5) if group else (1, 5)
    scale = rng.uniform(0.1, 1, shape).astype(np.float32)
    zero = rng.integers(0, 2**bits, shape).astype(np.uint8)
    return representations.Quantized(codes, scale, zero, bits, group)


def trees():
    w = data(4, 3)
    factors = representations.Dense(data(4, 2)), quantized(data(2, 3))
    indices = np.arange(12, dtype=np.uint16).reshape(4, 3) % 3
    return {
        "params": {
            "plain": w,
            "half": w.astype(ml_dtypes.bfloat16),
            "scalar": np.float32(3),
            "a": {"kernel": quantized(w), "bias": data(3)},
            "b": {"kernel": quantized(data(5, 3), bits=3)},
            "c": affine(8),
            "d": affine(4, group=3),
            "sparse": representations.sparse(w > 0, quantized(w, bits=4)),
            "masked": representations.sparse(w > 0, representations.Dense(w)),
            "book": representations.Codebook(indices, data(3)),
            "vectors": representations.Codebook(
                indices[:2].astype(np.uint8), data(3, 2), (4, 3)
            ),
            "coded": representations.Codebook(indices, affine(4)),
            "low": representations.LowRank(*factors),
            "sum": representations.Sum(
                representations.LowRank(*factors),
                representations.sparse(w > 0, quantized(w)),
            ),
            "tied": representations.Tied("a/kernel"),
        }
    }


def same(a, b):
    """Returns whether two representations are one, types and all."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, representations.Representation):
        return all(same(getattr(a, k), getattr(b, k)) for k in a.__dataclass_fields__)
    return a == b


def test_a_tree_comes_back_bit_for_bit(tmp_path):
    path, about = tmp_path / "m.safetensors", {"model": "mlp", "n": [1, None]}
    frozen = trees()
    size = safetensors_file.save(path, frozen, about)
    assert size == path.stat().st_size
    back = tree.flatten(safetensors_file.load(path))
    expected = tree.flatten(frozen)
    assert set(back) == set(expected)
    for name, leaf in expected.items():
        assert same(back[name], representations.of(leaf)), name
    assert safetensors_file.metadata(path) == about


def test_others_read_it(tmp_path):
    """By the package alone, and the metadata's word for what the tensors are."""
    path = tmp_path / "m.safetensors"
    frozen = trees()["params"]
    safetensors_file.save(path, frozen)
    with safetensors.safe_open(path, framework="np") as file:
        leaves = json.loads(file.metadata()["leaves"])
        np.testing.assert_array_equal(file.get_tensor("plain"), frozen["plain"])
        about = leaves["a/kernel"]
        assert (about["kind"], about["bits"], about["group"]) == ("Quantized", 8, 0)
        assert about["axis"] == [1]
        codes = file.get_tensor("a/kernel/codes")
        assert codes.dtype == np.int8
        weight = codes.astype(np.float32) * file.get_tensor("a/kernel/scale")
        expected = representations.materialize(frozen["a"]["kernel"])
        np.testing.assert_array_equal(weight, expected)
        # Groups of an affine grid, packed: 2 groups of 3 along the inputs.
        packed, about = file.get_tensor("d/codes"), leaves["d"]
        assert packed.size == 15 and about["packed"] == {
            "shape": [6, 5],
            "dtype": "uint8",
        }
        codes = np.stack([packed & 15, packed >> 4], -1).reshape(2, 3, 5).astype(int)
        weight = (
            codes - file.get_tensor("d/zero_point").astype(int)
        ) * file.get_tensor("d/scale")
        expected = representations.materialize(frozen["d"])
        np.testing.assert_array_equal(weight.reshape(6, 5).astype(np.float32), expected)
        assert leaves["tied"] == {"kind": "Tied", "path": "a/kernel"}


@pytest.mark.slow
def test_dense_weights_are_one_tensor_each(tmp_path):
    path = tmp_path / "m.safetensors"
    frozen = {"params": trees()["params"]}
    safetensors_file.save_dense(path, frozen)
    found = safetensors.numpy.load_file(path)
    expected = tree.flatten(representations.thaw(frozen))
    assert set(found) == set(expected)
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x)


def test_a_file_of_others_is_dense(tmp_path):
    path, w = tmp_path / "m.safetensors", data(2, 3)
    safetensors.numpy.save_file({"a/b": w}, path)
    back = safetensors_file.load(path)
    assert same(back["a"]["b"], representations.Dense(w))
    assert safetensors_file.metadata(path) == {}


def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"

    def says(message, call, *args):
        with pytest.raises(errors.UserError, match=message) as caught:
            call(*args)
        assert "\n" not in str(caught.value)

    says("cannot read", safetensors_file.load, path)
    says("JSON can hold", safetensors_file.save, path, {}, {"a": {1, 2}})
    frozen = {"w": quantized(data(4, 3))}
    safetensors_file.save(path, frozen)
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[9:]):
        path.write_bytes(damaged)
        says("damaged", safetensors_file.load, path)
    for old, new in ((b"pare 1", b"pare 9"), (b"Quantized", b"Quantised")):
        path.write_bytes(content.replace(old, new))
        says("expected 'pare 1'|damaged: w is not", safetensors_file.load, path)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    says("pip install -r requirements-deploy.txt", safetensors_file.save, path, frozen)
