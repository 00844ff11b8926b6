"""An artifact as ONNX files: what is written, what is measured, what is refused."""

import jax
import numpy as np
import onnx
import pytest

from configs import common
from configs import export as config_file
from experiments import export
from lib import errors, files, models, representations, tree
from lib.data import inputs
from lib.deploy import artifact
from tests.train import jobs

EIGHT = {"bits": 8, "symmetric": False}
ABOUT = {
    "model": {"name": "mlp", "widths": [16]},
    "classes": 10,
    "shape": [8, 8, 1],
    "data": common.base().data.to_dict(),
    "inputs": inputs.to_label(jobs.NORMALISATION),
    "rules": [["dense_0", EIGHT]],
}


def save(run, name, about=ABOUT):
    """Writes what a stage would leave: int8 kernels, and the range of one input."""
    module = models.build("mlp", classes=10, widths=(16,))
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), (8, 8, 1)))
    rng = np.random.default_rng(0)
    frozen = {}
    for path, leaf in tree.flatten(shapes[0]).items():
        frozen[path] = rng.normal(size=leaf.shape).astype(np.float32)
        if path.endswith("kernel"):
            codes = rng.integers(-127, 128, leaf.shape).astype(np.int8)
            scale = np.full((1, leaf.shape[1]), 1e-3, np.float32)
            frozen[path] = representations.Quantized(codes, scale, None, 8)
    ranges = {"MLP/dense_0/lhs": np.float32([-2, 4])} if about["rules"] else {}
    whole = {"params": tree.unflatten(frozen), "ranges": tree.unflatten(ranges)}
    artifact.save(run / "artifacts" / f"{name}.pare", whole, about)


def config(run, stage):
    found = config_file.get_config("smoke")
    found.run, found.stage = str(run), stage
    found.export.batch_sizes = (1, 3)
    return found


@pytest.mark.slow
def test_both_files_are_written_and_measured(tmp_path, capsys):
    save(tmp_path / "run", "small")
    at = tmp_path / "out"
    found = export.run(config(tmp_path / "run", "small"), str(at))
    assert files.read_json(at / "export.json") == files.plain(found)
    assert list(found["artifacts"]) == ["onnx_float32", "onnx_int8"]
    whole, int8 = found["artifacts"].values()
    names = ("small.onnx", "small.int8.onnx")
    for name, one in zip(names, found["artifacts"].values(), strict=True):
        assert one["path"] == str(at / name)
        assert one["bytes"] == (at / name).stat().st_size
        assert one["count"] == 360 and 0 <= one["accuracy"] < 0.5
        times = one["times_ms"]
        assert [(t["threads"], t["batch"], t["n"]) for t in times] == [
            (1, 1, 5),
            (1, 3, 5),
        ]
        assert all(0 < t["low"] <= t["median"] <= t["high"] for t in times)
        assert one["latency_ms"] is None  # which would stand beside JAX's
        assert 0 < one["peak_memory_bytes"] < 2**30
        assert one["same_class_as_jax"] > 0.98
    assert whole["largest_difference_to_jax"] < 1e-4
    assert int8["largest_difference_to_jax"] < 0.1
    contractions = [
        (f["float_contractions"], f["integer_contractions"]) for f in (whole, int8)
    ]
    assert contractions == [(2, 0), (1, 1)]  # the rules say nothing of the logits
    assert found["environment"]["onnx"] == onnx.__version__
    out = capsys.readouterr().out.splitlines()
    (head,) = (i for i, line in enumerate(out) if line.startswith("file "))
    assert out[head + 1].startswith("onnx_float32  ONNX Runtime ")
    assert out[head + 3].startswith("onnx_int8 against onnx_float32 in ONNX Runtime")
    assert found["verdicts"] == out[head + 3 :]
    # Pixels as they are stored go in.
    (image,) = onnx.load(at / "small.onnx").graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.slow
def test_what_has_no_int8_file_says_why(tmp_path, capsys):
    save(tmp_path, "plain", {**ABOUT, "rules": []})
    found = export.run(config(tmp_path, "plain"), str(tmp_path / "out"))
    assert list(found["artifacts"]) == ["onnx_float32"]
    why = "the stage rounds no activations"
    assert found["left_out"] == {"onnx_int8": why} and found["verdicts"] == []
    assert f"no plain.int8.onnx: {why}" in capsys.readouterr().out


def test_names_are_judged_before_anything_is_read(tmp_path):
    wanted = config(tmp_path / "absent", "small")
    wanted.export.targets = ("onnx_int9",)
    with pytest.raises(errors.UserError, match="did you mean 'onnx_int8'"):
        export.run(wanted, str(tmp_path / "out"))
    wanted.export.targets = ()
    with pytest.raises(errors.UserError, match="valid: packed, onnx_float32"):
        export.run(wanted, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_factors_stay_factors(tmp_path):
    save(tmp_path, "small")
    path = tmp_path / "artifacts" / "small.pare"
    whole = artifact.load(path)
    factors = [np.ones(shape, np.float32) for shape in ((64, 2), (2, 16))]
    whole["params"]["dense_0"]["kernel"] = representations.LowRank(
        *map(representations.Dense, factors)
    )
    artifact.save(path, whole, {**ABOUT, "rules": []})
    found = export.run(config(tmp_path, "small"), str(tmp_path / "out"))
    whole = found["artifacts"]["onnx_float32"]
    assert whole["float_contractions"] == 3
    assert whole["largest_difference_to_jax"] < 1e-2


def test_it_names_what_it_cannot_find(tmp_path):
    with pytest.raises(errors.UserError, match="config.run is empty"):
        export.run(config("", "small"), str(tmp_path))
    with pytest.raises(errors.UserError, match="cannot read artifact .*absent"):
        export.run(config(tmp_path / "absent", "small"), str(tmp_path))
    save(tmp_path, "small")
    with pytest.raises(errors.UserError, match="did you mean 'small'"):
        export.run(config(tmp_path, "smal"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
