"""Readers of other libraries' files of weights, found by how a file's name ends.

None runs anything that a file says; each tells a damaged file in one line.
"""

import json
import pathlib
from typing import Any

from lib import errors
from lib.models.readers import (
    flax_file,
    hub,
    npz_file,
    safetensors_file,
    torch_file,
)
from lib.models.readers.base import Entries, Entry, Reader

__all__ = ["READERS", "Entries", "Entry", "about", "locate", "read"]


READERS: dict[str, Reader] = {
    ".bin": torch_file.entries,
    ".msgpack": flax_file.read,
    ".npz": npz_file.read,
    ".pt": torch_file.entries,
    ".pth": torch_file.entries,
    ".safetensors": safetensors_file.read,
    ".th": torch_file.entries,
}

_INDEX = ".index.json"
# What a folder's weights are called, the first that is there.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
)


def locate(source: str | pathlib.Path) -> pathlib.Path:
    """Returns the file of weights that `source` means.

    Args:
      source: a file; a folder that holds one of `NAMES`; or `owner/name` of the Hugging
        Face hub, which is fetched where no file or folder is called so.

    Raises:
      UserError: there is no such file, or none of `NAMES` in the folder.
    """
    path = pathlib.Path(source).expanduser()
    named = path.suffix in READERS or path.name.endswith(_INDEX)
    if not path.exists() and not named and hub.is_name(str(source)):
        path = hub.fetch(str(source))
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).exists():
            return path / name
    raise errors.UserError(
        f"folder {path} holds no weights; expected one of {', '.join(NAMES)}"
    )


def read(path: pathlib.Path) -> Entries:
    """Returns the arrays of a file, or of all the parts that an index names.

    Raises:
      UserError: a file is missing, damaged or of another kind; an index names what its
        parts do not hold.
    """
    if not path.name.endswith(_INDEX):
        return errors.lookup(READERS, path.suffix, "kind of weights file")(path)
    table = _json(path)
    places = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(places, dict):
        raise errors.UserError(f"{path} is damaged: it has no table 'weight_map'")
    found: Entries = {}
    parts: dict[str, Entries] = {}
    for name, part in places.items():
        if not isinstance(part, str) or pathlib.PurePath(part).name != part:
            raise errors.UserError(f"{path} is damaged: {part!r} is no file beside it")
        if part not in parts:
            parts[part] = read(path.parent / part)
        if name not in parts[part]:
            raise errors.UserError(
                f"{path} says that {name!r} is in {part}, which does not hold it"
            )
        found[name] = parts[part][name]
    return found


def about(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the `config.json` beside a folder's weights; None where there is none.

    Raises:
      UserError: it is damaged.
    """
    beside = path.parent / "config.json"
    if path.name not in NAMES or not beside.exists():
        return None
    found = _json(beside)
    if not isinstance(found, dict):
        raise errors.UserError(f"{beside} is damaged: it is no table")
    return found


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except ValueError as e:
        raise errors.UserError(f"{path} is damaged: it is no JSON ({e})") from e
