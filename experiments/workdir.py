"""A run's folder: what it was started with, and what of it is finished."""

import pathlib
from typing import Any

from lib import errors, tree
from lib.report import files


def claim(workdir: str | pathlib.Path, config: Any) -> pathlib.Path:
    """Makes the folder this config's, or goes on with it; returns its path.

    Raises:
      UserError: the folder cannot be written, or belongs to another config; the
        message shows each difference.
    """
    path = pathlib.Path(workdir).absolute()
    mine = files.plain(config.to_dict())
    at = path / "config.json"
    if at.exists():
        difference = differences(files.read_json(at), mine)
        if difference:
            raise errors.UserError(
                f"{path} holds a run of another config ({'; '.join(difference)}); "
                "give another --workdir or the same config"
            )
    else:
        files.write_json(at, mine)
    return path


def differences(old: Any, new: Any) -> list[str]:
    """Returns "key: old -> new" for each setting that differs."""
    absent = "(none)"
    was, now = tree.flatten(old), tree.flatten(new)
    return [
        f"{key.replace('/', '.')}: {was.get(key, absent)} -> {now.get(key, absent)}"
        for key in sorted({*was, *now})
        if was.get(key, absent) != now.get(key, absent)
    ]
