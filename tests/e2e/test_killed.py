"""Killed at any moment and started again, a run ends with the same packed bytes."""

import signal

import pytest

from lib.report import metrics, results
from tests.e2e import runs

pytestmark = pytest.mark.slow


def printed(text):
    """The moment at which a line of output begins with `text`."""
    return lambda workdir: lambda output: f"\n{text}" in f"\n{output}"


def made(pattern):
    """The moment at which a file or folder of that pattern is there."""
    return lambda workdir: lambda output: any(workdir.glob(pattern))


MOMENTS = {
    "before anything": lambda workdir: lambda output: True,
    "as the config is written": made("config.json"),
    "as the first stage compiles": printed("student: 60 steps"),
    "in the first stage": made("checkpoints/student/[2-6]0"),
    "as a checkpoint is written": made("checkpoints/student/*.orbax*"),
    "as the first stage is packed": made("artifacts/student.pare"),
    "between the stages": printed("student: packed"),
    "as the second stage compiles": printed("pruned: 60 steps"),
    "in the second stage": made("checkpoints/pruned/[1-6]0"),
    "at the end of the second stage": made("checkpoints/pruned/60"),
    "as the files are measured": printed("measuring"),
    "as the report is written": made("result.json"),
}


def check_finished(workdir, undisturbed):
    assert runs.artifacts(workdir) == runs.artifacts(undisturbed)
    assert set(runs.artifacts(workdir)) == {"student.pare", "pruned.pare"}
    one, other = results.read(workdir), results.read(undisturbed)
    for mine, theirs in zip(one["stages"], other["stages"], strict=True):
        for key in ("name", "steps", "metrics", "size"):
            assert mine[key] == theirs[key]
    # The records tell of each step once, whatever was done twice.
    for stage, records in metrics.read(workdir).items():
        steps = [r["step"] for r in records if "loss" in r]
        assert steps == sorted(set(steps)) and steps[-1] == 60
        mine = {r["step"]: r for r in records if "validation_accuracy" in r}
        theirs = {
            r["step"]: r
            for r in metrics.read(undisturbed)[stage]
            if "validation_accuracy" in r
        }
        assert mine == theirs


def test_killed_again_and_again(undisturbed, tmp_path):
    """One run, killed once at each moment, each time started with the same command."""
    workdir, missed = tmp_path / "run", []
    for name, moment in MOMENTS.items():
        code, output, errors = runs.interrupt(runs.tiny(workdir), moment(workdir))
        assert errors == "", name
        if code == 0:  # some moments are short
            missed.append(name)
            check_finished(workdir, undisturbed)
            workdir = tmp_path / f"run after {len(missed)} missed"
        else:
            assert code == -signal.SIGKILL, name
    assert len(missed) <= 2, missed
    done = runs.succeed(runs.tiny(workdir))
    assert done.stderr == ""
    check_finished(workdir, undisturbed)


def test_asked_to_stop_again_and_again(undisturbed, tmp_path):
    """SIGTERM: one line, exit code 143, and nothing that was trained is lost."""
    workdir = tmp_path / "run"
    for name in (
        "as the first stage compiles",
        "in the second stage",
        "as the files are measured",
    ):
        code, output, errors = runs.interrupt(
            runs.tiny(workdir), MOMENTS[name](workdir), signal.SIGTERM
        )
        assert code == 143, (name, output, errors)
        assert errors.startswith("stopped: asked to stop"), name
        assert errors.count("\n") == 1, name
        if "stage" in name:
            assert "asked to stop: saved step" in errors, name
            stage = "student" if "first" in name else "pruned"
            saved = errors.split()[-1]
            assert (workdir / "checkpoints" / stage / saved).exists()
    done = runs.succeed(runs.tiny(workdir))
    assert done.stderr == ""
    check_finished(workdir, undisturbed)


def test_a_damaged_checkpoint_is_told_and_trained_again(undisturbed, tmp_path):
    for attempt in range(5):  # the moment is short
        workdir = tmp_path / f"run {attempt}"
        saved = workdir / "checkpoints" / "student" / "40"
        status, _, _ = runs.interrupt(
            runs.tiny(workdir), lambda output, saved=saved: saved.exists()
        )
        if status and not (workdir / "stages" / "student.json").exists():
            break
    folders = (workdir / "checkpoints" / "student").glob("[0-9]*")
    steps = sorted(int(p.name) for p in folders if p.name.isdigit())
    newest = workdir / "checkpoints" / "student" / str(steps[-1])
    for path in newest.glob("state/d/*"):
        path.write_bytes(path.read_bytes()[:100])
    done = runs.succeed(runs.tiny(workdir))
    assert done.stderr == ""
    assert f"checkpoint {newest} is damaged (" in done.stdout
    assert f"student: going on after step {steps[-2]} of 60" in done.stdout
    check_finished(workdir, undisturbed)
