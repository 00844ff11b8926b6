"""Examples in a temporary file: what was written is read, and nothing is left."""

import gc
import os
import pathlib
import resource
import tempfile

import numpy as np
import pytest

from lib import errors
from lib.data import mapped

WHOLE = np.arange(60, dtype=np.uint16).reshape(20, 3)


def parts():
    for start in range(0, len(WHOLE), 7):
        yield WHOLE[start : start + 7]


def test_it_is_what_was_written_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = mapped.written(parts(), WHOLE.shape, np.uint16)
    assert not list(tmp_path.iterdir())  # it has no name
    source = mapped.Mapped(found, np.arange(20, dtype=np.int32))
    some = np.array([3, 19, 3, 0])
    got = source.gather(some)
    np.testing.assert_array_equal(got["input"], WHOLE[some])
    assert got["label"].tolist() == some.tolist()
    assert type(got["input"]) is np.ndarray and got["input"].flags.writeable
    assert len(source) == 20 and source[5]["input"].tolist() == [15, 16, 17]
    with pytest.raises(ValueError):
        found[0] = 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files")
def test_the_file_goes_with_the_map():
    def open_files():
        return [
            link
            for fd in pathlib.Path("/proc/self/fd").iterdir()
            if "(deleted)" in (link := os.readlink(fd) if fd.is_symlink() else "")
        ]

    before = len(open_files())
    found = mapped.written(parts(), WHOLE.shape, np.uint16)
    assert len(open_files()) == before + 1
    del found
    gc.collect()
    assert len(open_files()) == before


def test_no_room_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(errors.UserError, match="cannot write .*/nowhere/") as caught:
        mapped.written(parts(), WHOLE.shape, np.uint16)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(errors.UserError, match="File too large; expected a folder"):
            mapped.written(parts(), WHOLE.shape, np.uint16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_fails_before_it_is_written_is_its_own_error(tmp_path):
    def failing():
        yield WHOLE[:3]
        raise OSError("of the source")

    with pytest.raises(OSError, match="of the source"):
        mapped.written(failing(), WHOLE.shape, np.uint16)
