"""A disk that is full: one line, and with space again the run goes on to its end."""

import shutil
import subprocess
import sys

import pytest

from tests.e2e import runs

pytestmark = pytest.mark.slow


LIMITED = """
import os, resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.argv[2], sys.argv[2:])
"""


def limited(size, parts):
    """A command that cannot write files of more bytes: EFBIG instead of ENOSPC."""
    return [sys.executable, "-c", LIMITED, str(size), *parts]


def check(done):
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: cannot write ")


def test_files_that_cannot_grow(undisturbed, tmp_path):
    """The config is not written; then no checkpoint; then no report."""
    workdir = tmp_path / "run"
    parts = runs.tiny(workdir)
    for size, what in ((1000, "config.json"), (16_500, "checkpoints"), (30_000, "")):
        done = runs.run(limited(size, parts))
        check(done)
        assert "File too large" in done.stderr and what in done.stderr
    assert "measuring" in done.stdout
    done = runs.succeed(parts)
    assert "packed" not in done.stdout.split("measuring")[0]
    assert runs.artifacts(workdir) == runs.artifacts(undisturbed)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a small disk, or changes the size of it, in KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    sizes = []

    def make(kilobytes):
        again = ["-o", f"remount,size={kilobytes}k"]
        options = again if sizes else ["-o", f"size={kilobytes}k"]
        mount = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting a small disk is not permitted here")
        sizes.append(kilobytes)
        return folder

    yield make
    if sizes:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_on_the_way(disk, undisturbed):
    """It grows a little each time; whatever was in the way, the next run goes on."""
    finished = False
    for kilobytes in (20, 100, 200, 400):
        workdir = disk(kilobytes) / "run"
        done = runs.run(runs.tiny(workdir))
        finished = done.returncode == 0
        if finished:
            break
        check(done)
        assert "No space left on device" in done.stderr
    assert not finished and "measuring" in done.stdout
    workdir = disk(10_000) / "run"
    done = runs.succeed(runs.tiny(workdir))
    assert done.stderr == "" and "packed" not in done.stdout.split("measuring")[0]
    assert runs.artifacts(workdir) == runs.artifacts(undisturbed)
