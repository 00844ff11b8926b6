"""A disk that is full: one line, and with space again the run goes on to its end."""

import functools
import resource
import shutil
import subprocess

import pytest

from tests.e2e import runs

pytestmark = pytest.mark.slow


def limit(size):
    """Files beyond that many bytes cannot be written: EFBIG in the place of ENOSPC."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def check(done):
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: cannot write ")


@pytest.mark.parametrize("size", [1000, 6000, 30_000])
def test_files_that_cannot_grow(size, undisturbed, tmp_path):
    """The config is not written; or a checkpoint; or the report."""
    workdir = tmp_path / "run"
    parts = runs.tiny(workdir)
    done = runs.run(parts, preexec_fn=functools.partial(limit, size))
    check(done)
    assert "File too large" in done.stderr
    runs.succeed(parts)
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
    assert not finished and "pruned: 60 steps" in done.stdout
    workdir = disk(10_000) / "run"
    done = runs.succeed(runs.tiny(workdir))
    assert done.stderr == "" and "student: 60 steps\n" not in done.stdout
    assert runs.artifacts(workdir) == runs.artifacts(undisturbed)
