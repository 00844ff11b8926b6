"""Files that are whole or not there: temporary file, fsync, rename.

A workdir has one writer. The temporary file of `x` is `.x.tmp` beside it, so what a
killed run leaves behind is overwritten by the next one.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lib import errors

Plain = Any  # None, bool, int, float, str, and lists and dicts of them


def write_bytes(path: str | os.PathLike, data: bytes) -> int:
    """Writes `data` to `path` at once or not at all; returns the bytes written.

    Missing parent folders are made. An existing file stays as it was until the new
    one is on the disk.

    Raises:
      UserError: the folder is read-only, full or no folder.
    """
    with whole(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yields the path of a temporary file, which becomes `path` when all went well.

    As `write_bytes`, for what writes files itself; it has to close the file.

    Raises:
      UserError: the folder is read-only, full or no folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as e:
        raise unwritable(path, e) from e


def may_write(path: str | os.PathLike) -> None:
    """Raises a `UserError` where `write_bytes` could not; leaves nothing behind.

    A full disk does not show yet.
    """
    path = Path(path).absolute()
    folder = next(above for above in path.parents if above.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise unwritable(path, e) from e
    if path.is_dir():
        raise errors.UserError(f"cannot write {path}: it is a folder, expected a file")


def unwritable(path: str | os.PathLike, error: OSError) -> errors.UserError:
    """Returns the one-line error for a `path` that could not be written."""
    return errors.UserError(
        f"cannot write {path}: {error.strerror or error}; "
        "expected a folder that is writable and has space"
    )


def _sync_folder(folder: Path) -> None:
    # The rename itself is only safe from a power cut once the folder is on the disk.
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> int:
    """Writes `text` as UTF-8 in the manner of `write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike, value: Any) -> int:
    """Writes `plain(value)` as strict, indented JSON in the manner of `write_bytes`."""
    return write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Plain:
    """Returns the value of a JSON file.

    Raises:
      UserError: the file is missing, unreadable, or not strict JSON.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    try:
        return parse_json(data)
    except ValueError as e:
        raise errors.UserError(f"{path} is damaged: expected JSON, {e}") from e


def parse_json(data: bytes) -> Plain:
    """Returns the value of strict JSON; raises ValueError for anything else."""

    def refuse(token: str):
        raise ValueError(f"found {token}")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except RecursionError as e:
        raise ValueError("nested too deep") from e


def plain(value: Any) -> Plain:
    """Returns `value` as JSON has it.

    Scalars and arrays of NumPy and JAX become numbers and lists, paths become text.
    A float that is not finite becomes "nan", "inf" or "-inf", since JSON has no word
    for it; `float(...)` reads all three.

    Raises:
      TypeError: something that has no place in JSON, named by its key.
    """
    return _plain(value, "value")


def _plain(value: Any, where: str) -> Plain:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, expected text")
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and JAX
        return _plain(value.tolist(), where)
    raise TypeError(f"{where} is {type(value).__name__}, which JSON cannot hold")
