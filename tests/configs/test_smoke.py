"""Every config there is has a variant that runs in seconds, and it runs."""

import sys

import pytest

from lib import files
from lib.deploy import artifact
from tests.e2e import runs

CONFIGS = sorted(
    str(path.relative_to(runs.ROOT))
    for path in runs.ROOT.glob("configs/**/*.py")
    if path.name != "common.py"
)


# Techniques, papers and recipes of images are trained in two processes; three of them,
# and all else, as users run them.
RECIPES = [
    "configs/cats_vs_dogs.py",
    "configs/digits_cnn.py",
    "configs/image_classification.py",
    "configs/mnist.py",
]
ALIKE = [c for c in CONFIGS if c.startswith(("configs/techniques/", "configs/papers/"))]
ALIKE += RECIPES
WHOLE = [
    "configs/papers/resnet_ptq.py",
    "configs/techniques/factorize.py",
    "configs/techniques/tie.py",
]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["techniques", "papers"])
def test_every_one_trains_and_packs(folder, tmp_path):
    paths = [c for c in ALIKE if c not in WHOLE and f"/{folder}/" in c]
    paths += RECIPES if folder == "papers" else []
    script = [sys.executable, "-m", "tests.configs.train_only", str(tmp_path), *paths]
    done = runs.run(script, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    for path in paths:
        assert f"trained {path}\n" in done.stdout
        folder = tmp_path / path.split("/")[-1].removesuffix(".py") / "artifacts"
        packed = list(folder.glob("*.pare"))
        assert packed
        for file in packed:
            assert artifact.materialize(artifact.load(file)["params"])


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted({*CONFIGS} - {*ALIKE} | {*WHOLE}))
def test_the_smoke_variant_runs(config, tmp_path_factory, tmp_path):
    finished, output = runs.smoke(tmp_path_factory.getbasetemp())
    if f"{config}:smoke" == runs.SMOKE:
        workdir = finished
    else:
        changes = {}
        if config == "configs/evaluate.py":
            changes["paths"] = (str(finished / "artifacts" / "quantized.pare"),)
        if config == "configs/inspect.py":
            changes["path"] = str(finished / "artifacts" / "quantized.pare")
        if config == "configs/export.py":
            changes |= {"run": str(finished), "stage": "quantized"}
        if config == "configs/damage.py":
            changes |= {"run": str(finished)}
            changes |= {"dense": "teacher", "compressed": "quantized"}
        if config == "configs/sensitivity.py":
            changes |= {"run": str(finished), "stage": "student"}
        workdir = tmp_path / "run"
        done = runs.succeed(runs.command(workdir, f"{config}:smoke", **changes))
        assert done.stderr == ""
        output = done.stdout
    assert output.endswith("\n")
    if config == "configs/inspect.py":
        return  # it leaves nothing behind
    results = {"result.json", "evaluation.json", "benchmark.json", "export.json"}
    results |= {"sweep.json", "reproduced.json", "deployment.json", "shrink.json"}
    results |= {"features.json", "contact_sheet.png", "loader.json", "tune.json"}
    results |= {"cross_validation.json", "diagnosis.json", "damage.json"}
    results |= {"sensitivity.json", "budget.json", "stop_words.json"}
    assert results & {path.name for path in workdir.iterdir()}
    if config == "configs/deploy.py":
        _every_file_was_measured(workdir, output)
    if config == "configs/shrink.py":
        _cut_and_proved(workdir)


def _cut_and_proved(workdir):
    result = files.read_json(workdir / "result.json")
    dense, small, quantized = result["stages"]
    assert 0 <= small["metrics"]["masked_minus_small"] < 1e-4
    assert {(g["size"], g["kept"]) for g in small["cut"]} == {(4, 2), (8, 4)}
    assert small["size"]["params"] < dense["size"]["params"] / 3
    assert quantized["size"]["macs"] == small["size"]["macs"]
    assert set(result["artifacts"]) == {
        *("packed", "packed_small", "onnx_float32", "onnx_float32_small", "onnx_int8")
    }
    assert not result["left_out"]
    for one in result["artifacts"].values():
        assert one["same_class_as_jax"] > 0.97
    assert "Removed before small" in (workdir / "report.html").read_text()


def _every_file_was_measured(workdir, output):
    result = files.read_json(workdir / "result.json")
    wanted = {"packed", "safetensors", "stablehlo", "onnx_float32", "onnx_int8"}
    assert wanted <= set(result["artifacts"]) and not result["left_out"]
    for name, one in result["artifacts"].items():
        assert one["bytes"] == (workdir / one["path"]).stat().st_size
        # All the 360 images of the test split, in the runtime of the file.
        assert one["count"] == 360 and one["same_class_as_jax"] > 0.97, name
        assert 0 < one["peak_memory_bytes"] and len(one["times_ms"]) == 2
    for name in ("stablehlo", "onnx_int8"):
        assert result["artifacts"][name]["float_contractions"] == 0
        (told,) = (v for v in result["verdicts"] if v.startswith(f"{name} against"))
        assert told in output


@pytest.mark.parametrize("config", CONFIGS)
def test_it_says_what_it_is_and_how_it_is_run(config):
    text = (runs.ROOT / config).read_text()
    first, docstring = text.split('"""')[1].split("\n", 1)
    assert 20 < len(first) < 100
    assert f"--config={config}" in docstring
