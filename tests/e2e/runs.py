"""`python run.py` as a user starts it: a process of its own, one device, no tricks."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = "configs/quickstart.py:smoke"

# Two stages of a tiny model, checkpoints all the time: to be killed and resumed.
TINY = {
    "stages": "('student', 'pruned')",
    "student.teacher": "",
    "student.objective": "('cross_entropy',)",
    "student.model.widths": "(24,)",
    "pruned.teacher": "",
    "pruned.objective": "('cross_entropy',)",
    "student.steps": 60,
    "pruned.steps": 60,
    "student.augment": "()",
    "pruned.augment": "()",
    "pruned.use": "best",
    "save_every": 10,
    "log_every": 5,
    "steps_per_call": 5,
}


def environment():
    """The environment without what the tests set for themselves."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return kept | {"JAX_PLATFORMS": "cpu", "COLUMNS": "100"}


def command(workdir, config=SMOKE, flags=(), **overrides):
    """The command line; overrides are written `stage__steps=3`, or given as flags."""
    parts = [sys.executable, str(ROOT / "run.py")]
    if config:
        parts.append(f"--config={config}")
    if workdir:
        parts.append(f"--workdir={workdir}")
    settings = {k.replace("__", "."): v for k, v in overrides.items()}
    return [*parts, *(f"--config.{k}={v}" for k, v in settings.items()), *flags]


def tiny(workdir):
    return command(workdir, **{k.replace(".", "__"): v for k, v in TINY.items()})


def run(parts, **options):
    """Runs a command to its end."""
    settings = dict(cwd=ROOT, env=environment(), timeout=240)
    return subprocess.run(
        parts, capture_output=True, text=True, **{**settings, **options}
    )


@functools.cache
def _zygote():
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.zygote"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def refused(parts):
    """Runs a command of `run.py` that computes nothing, in a fork; returns as `run`."""
    with tempfile.TemporaryDirectory() as folder:
        process = _zygote()
        process.stdin.write(json.dumps([parts[1:], folder]) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        said = [
            (pathlib.Path(folder) / name).read_text() for name in ("stdout", "stderr")
        ]
    return subprocess.CompletedProcess(parts, status, *said)


def succeed(parts, **options):
    done = run(parts, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@functools.cache
def smoke(folder):
    """Makes the smoke run that all tests share; returns its workdir and output."""
    workdir = folder / "smoke"
    done = succeed(command(workdir))
    assert done.stderr == ""
    return workdir, done.stdout


def interrupt(parts, ready, how=signal.SIGKILL):
    """Starts a command, sends a signal once `ready(output so far)`, waits for its end.

    Returns (exit status, standard output, standard error); the status is 0 if the
    command ended before the moment came.
    """
    with subprocess.Popen(
        parts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as child:
        try:
            output, began = b"", time.monotonic()
            os.set_blocking(child.stdout.fileno(), False)
            while not ready(output.decode()):
                if child.poll() is not None:  # it was quicker than this moment
                    break
                assert time.monotonic() - began < 120, "not ready: " + output.decode()
                time.sleep(0.002)
                output += child.stdout.read() or b""
            child.send_signal(how)
            os.set_blocking(child.stdout.fileno(), True)
            rest, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    return child.returncode, (output + rest).decode(), errors.decode()


def files(workdir):
    """Every file below a folder: its path, content and time of change."""
    return {
        str(p.relative_to(workdir)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(workdir.rglob("*"))
        if p.is_file()
    }


def artifacts(workdir):
    """The packed files: name and bytes."""
    return {p.name: p.read_bytes() for p in sorted(workdir.glob("artifacts/*"))}
