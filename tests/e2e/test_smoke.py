"""One command from nothing to a report, and what it says when started again."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from lib.deploy import artifact
from lib.report import results
from tests.e2e import runs

STAGES = ["teacher", "student", "pruned", "quantized"]


def test_help_is_quick_and_lists_all_there_is():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "run.py", "--help"],
        capture_output=True,
        text=True,
        cwd=runs.ROOT,
        env=runs.environment(),
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert took < 2.0, f"{took:.2f} s of CPU"
    assert done.stderr == ""
    for name in ("compress", "evaluate", "--workdir", "--config.KEY=VALUE"):
        assert name in done.stdout
    configs = [p for p in runs.ROOT.glob("configs/**/*.py") if p.name != "common.py"]
    assert configs
    for path in configs:
        assert f"  {path.relative_to(runs.ROOT)}: " in done.stdout


@pytest.mark.slow
def test_the_workdir_holds_what_the_design_lists(smoke):
    workdir, _ = smoke
    config = json.loads((workdir / "config.json").read_text())
    assert config["stages"] == STAGES and config["experiment"] == "compress"
    assert config["teacher"]["steps"] == 20
    for name in STAGES:
        assert (workdir / "artifacts" / f"{name}.pare").stat().st_size > 1000
        assert list((workdir / "checkpoints" / name).glob("[0-9]*"))
        assert list((workdir / "events" / name).glob("*tfevents*"))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for name in STAGES:
        mine = [r for r in records if r["stage"] == name]
        assert {r["step"] for r in mine} == {10, 20}
        assert any("validation_accuracy" in r for r in mine)
        assert all("cross_entropy" in r for r in mine if "loss" in r)
    page = (workdir / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    assert "http" not in page.replace("http://www.w3.org/", "")
    left = [p for p in workdir.rglob("*") if p.name.endswith(".tmp")]
    assert left == []


@pytest.mark.slow
def test_the_result_is_valid_and_its_sizes_are_the_files(smoke):
    workdir, _ = smoke
    result = results.read(workdir)
    assert [stage["name"] for stage in result["stages"]] == STAGES
    for stage in result["stages"]:
        path = workdir / "artifacts" / f"{stage['name']}.pare"
        assert stage["size"]["file_bytes"] == os.path.getsize(path)
        assert stage["steps"] == 20 and stage["seconds"] > 0
        assert stage["metrics"]["count"] == 360
        hits = stage["metrics"]["accuracy"] * 360
        assert hits == pytest.approx(round(hits))
    packed = result["artifacts"]["packed"]
    assert packed["bytes"] == os.path.getsize(workdir / packed["path"])
    sizes = [stage["size"] for stage in result["stages"]]
    # Next to none: a bias of a unit that no image has reached is still zero.
    assert 0.999 * sizes[0]["params"] < sizes[0]["nonzero"] <= sizes[0]["params"]
    dense = artifact.materialize(
        artifact.load(workdir / "artifacts" / "quantized.pare")["params"]
    )
    kernels = [layer["kernel"] for layer in dense.values()]
    zeros = sum((kernel == 0).sum() for kernel in kernels)
    wanted = 0.9 * sum(kernel.size for kernel in kernels)
    assert zeros >= wanted - len(kernels)  # ERK is rounded leaf by leaf
    for kernel in kernels:
        assert len(set(kernel[:, 0].tolist())) <= 2**4 - 1
    counted = sum((w != 0).sum() for layer in dense.values() for w in layer.values())
    assert sizes[3]["nonzero"] == counted
    assert packed["size"]["macs"] == sum(k.size for k in kernels)


@pytest.mark.slow
def test_the_output_is_plain_lines_and_a_table(smoke):
    workdir, output = smoke
    assert "\x1b" not in output and "\r" not in output
    lines = output.splitlines()
    assert lines[-1] == f"report: {workdir}/report.html"
    for name in [*STAGES, "packed"]:
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert max(map(len, lines[-8:])) <= 100
    assert "pruned: techniques take 3 of 6 weights" in output


@pytest.mark.slow
def test_started_again_it_says_so_and_changes_nothing(smoke):
    workdir, output = smoke
    before = runs.files(workdir)
    done = runs.succeed(runs.command(workdir))
    assert runs.files(workdir) == before
    first, *table = done.stdout.splitlines()
    assert first == f"{workdir} is finished; this is what it measured"
    assert table == output.splitlines()[-len(table) :] and len(table) > 6


@pytest.mark.slow
def test_another_config_is_refused_with_the_difference(smoke):
    workdir, _ = smoke
    before = runs.files(workdir)
    done = runs.run(runs.command(workdir, prune__sparsity=0.95, teacher__steps=21))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {workdir} holds a run of another config")
    assert "(prune.sparsity: 0.9 -> 0.95; teacher.steps: 20 -> 21)" in done.stderr
    assert runs.files(workdir) == before


@pytest.mark.slow
def test_without_its_page_a_run_is_not_finished(smoke, tmp_path):
    """Killed between the result and the page: the page is made when started again."""
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    (workdir / "report.html").unlink()
    done = runs.succeed(runs.command(workdir))
    assert "is finished" not in done.stdout and (workdir / "report.html").exists()
    assert "teacher: 20 steps" not in done.stdout
    assert runs.artifacts(workdir) == runs.artifacts(smoke[0])


@pytest.mark.slow
def test_evaluate_measures_a_packed_file(smoke, tmp_path):
    workdir, _ = smoke
    path = workdir / "artifacts" / "quantized.pare"
    done = runs.succeed(
        runs.command(
            tmp_path / "measured",
            "configs/evaluate.py:smoke",
            paths=f"({str(path)!r},)",
        )
    )
    found = json.loads((tmp_path / "measured" / "evaluation.json").read_text())
    stage = results.read(workdir)["stages"][-1]
    assert found[str(path)]["accuracy"] == stage["metrics"]["accuracy"]
    assert f"{path}: test accuracy" in done.stdout
