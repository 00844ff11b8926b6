"""Several workers on one study: one is killed, and the others finish what it began."""

import getpass
import os
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from lib import files
from lib.report import metrics
from tests.e2e import runs

pytestmark = pytest.mark.slow

CONFIG = '''"""A search over a tiny model, with checkpoints all the time."""

from configs import common

FIXED = (
    ("stages", ("student",)),
    ("student.teacher", ""),
    ("student.objective", ("cross_entropy",)),
    ("student.model.widths", (16,)),
    ("student.steps", 60),
    ("save_every", 10),
    ("log_every", 5),
)


def get_config(arg=""):
    config = common.tune(
        "configs/quickstart.py:smoke",
        (("student.learning_rate", "log_float", 1e-3, 1e-2),),
        fixed=FIXED,
        sampler="random",
        trials=3,
        best=1,
    )
    config.xla_flags = common.FAST_TO_COMPILE
    return config
'''


@pytest.fixture(params=["journal", "postgresql"])
def storage(request):
    """Yields what `tune.storage` is set to."""
    if request.param == "journal":
        yield ""
        return
    pytest.importorskip("psycopg2", reason="the driver of PostgreSQL is not installed")
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("there is no PostgreSQL here: no initdb on the path")
    # Of its own: the server refuses to run as root, so another user has to come there,
    # and the path of a socket is short.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pare-postgresql-"))
    who = {"user": "nobody"} if os.getuid() == 0 else {}
    name = who.get("user", getpass.getuser())
    if who:
        shutil.chown(folder, "nobody")
    data = folder / "data"
    subprocess.run(
        ["initdb", "-D", data, "-A", "trust", "-N"],
        check=True,
        capture_output=True,
        cwd=folder,
        **who,
    )
    # By a socket in its own folder: no port is taken.
    server = subprocess.Popen(
        ["postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **who,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".s.PGSQL.*[0-9]")):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        yield f"postgresql+psycopg2://{name}@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder)


def in_a_trial(workdir):
    """The moment at which a worker has saved, but not finished, a trial."""

    def ready(output):
        begun = re.findall(r"trial (\d+): student.learning_rate", output)
        folder = workdir / "trials" / f"{int(begun[-1]):04d}" if begun else None
        return folder and any(folder.glob("checkpoints/student/[1-4]0"))

    return ready


def test_a_killed_worker_loses_nothing(storage, tmp_path):
    config, workdir = tmp_path / "tiny.py", tmp_path / "run"
    config.write_text(CONFIG)
    parts = runs.command(workdir, str(config), tune__storage=storage)
    settings = dict(cwd=runs.ROOT, env=runs.environment(), text=True)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(parts, **settings, **pipes) as other:
        try:
            status, _, errors = runs.interrupt(parts, in_a_trial(workdir))
            assert status == -signal.SIGKILL and errors == ""
            output, errors = other.communicate(timeout=240)
        finally:
            other.kill()
    assert other.returncode == 0 and errors == "", errors
    assert "student: going on after step" in output
    assert output.count("measuring the packed files") == 1  # the test split, once

    result = files.read_json(workdir / "tune.json")
    assert [t["state"] for t in result["trials"]] == ["complete"] * 3
    assert len({t["folder"] for t in result["trials"]}) == 3
    assert len({str(t["settings"]) for t in result["trials"]}) == 3
    for one in result["trials"]:
        folder = workdir / one["folder"]
        steps = [r["step"] for r in metrics.read(folder)["student"] if "loss" in r]
        assert steps == list(range(5, 61, 5))
        found = files.read_json(folder / "validation.json")
        assert one["values"] == [found["validation_accuracy"]]
        assert "accuracy" not in found
        measured = one["folder"] == result["best"][0]["folder"]
        assert (folder / "result.json").exists() == measured
    (best,) = result["best"]
    assert best["values"][0] == max(t["values"][0] for t in result["trials"])
    assert best["validation_accuracy"] == best["values"][0]
    # Its config is that of the run it was.
    made = runpy.run_path(str(workdir / best["config"]))["get_config"]().to_dict()
    ran = files.read_json(workdir / best["folder"] / "config.json")
    assert files.plain(made) == ran
