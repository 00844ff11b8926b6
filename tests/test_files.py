import json
import os
import resource
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors, files

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_what_json_holds_comes_back_as_it_was(value):
    assert files.parse_json(json.dumps(files.plain(value)).encode()) == value


def test_written_json_is_strict_and_takes_numpy_and_jax(tmp_path):
    path = tmp_path / "new" / "x.json"
    value = {
        "f": np.float32(0.5),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.arange(3),
        "j": jnp.float32(2.0),
        "t": (1, "x"),
        "p": Path("a/b"),
        "bad": [float("nan"), np.float32("inf"), -float("inf")],
    }
    written = files.write_json(path, value)
    assert written == path.stat().st_size
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    assert files.read_json(path) == {
        "f": 0.5,
        "i": 3,
        "b": True,
        "a": [0, 1, 2],
        "j": 2.0,
        "t": [1, "x"],
        "p": "a/b",
        "bad": ["nan", "inf", "-inf"],
    }


def test_what_may_be_written_is_known_without_a_trace(tmp_path):
    for path in (tmp_path / "x", tmp_path / "a" / "b" / "x"):
        files.may_write(path)
        assert not list(tmp_path.iterdir())
        assert files.write_bytes(path, b"mine") == 4
        files.may_write(path)  # over it
        assert path.read_bytes() == b"mine"
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        (tmp_path / "x").unlink(missing_ok=True)
    (tmp_path / "x").write_bytes(b"mine")
    for path in (tmp_path / "x" / "y", tmp_path, Path("/proc/pare/x")):
        for write in (files.may_write, lambda p: files.write_bytes(p, b"")):
            with pytest.raises(errors.UserError, match=f"cannot write {path}: "):
                write(path)


def test_what_json_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"value\.a\[1\] is object"):
        files.plain({"a": [0, object()]})
    with pytest.raises(TypeError, match=r"value\.a has the key 3"):
        files.plain({"a": {3: 0}})


@pytest.mark.parametrize(
    "data", [b"", b'{"a": ', b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_file_is_one_line(tmp_path, data):
    path = tmp_path / "result.json"
    path.write_bytes(data)
    with pytest.raises(errors.UserError, match="result.json is damaged") as e:
        files.read_json(path)
    assert "\n" not in str(e.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(errors.UserError, match="cannot read .*none.json: No such file"):
        files.read_json(tmp_path / "none.json")


def test_a_write_that_fails_on_the_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.bin"
    files.write_bytes(path, b"old")
    # A limit on the size of files stands for a full disk: the write really fails.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(errors.UserError, match="cannot write .*model.bin") as e:
            files.write_bytes(path, b"n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(e.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_a_read_only_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # root may write anywhere, so be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(errors.UserError, match="Permission denied"):
            files.write_text(tmp_path / "x.txt", "x")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "work").write_text("")
    with pytest.raises(errors.UserError, match="cannot write .*work/x.txt"):
        files.write_text(tmp_path / "work" / "x.txt", "x")


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    (tmp_path / ".x.txt.tmp").write_text("half a fi")
    files.write_text(tmp_path / "x.txt", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "whole"
