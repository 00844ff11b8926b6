"""A run's folder: what it was started with, and what of it is finished."""

import pathlib
from typing import Any

from lib import errors, files

CONFIG = "config.json"


def find(workdir: str | pathlib.Path, config: Any) -> pathlib.Path:
    """Returns the folder's path, if it is new or this config's; writes nothing.

    Raises:
      UserError: it belongs to another config; the message shows each difference.
    """
    path = pathlib.Path(workdir).absolute()
    mine = files.plain(config.to_dict())
    if (path / CONFIG).exists():
        difference = differences(files.read_json(path / CONFIG), mine)
        if difference:
            raise errors.UserError(
                f"{path} holds a run of another config ({'; '.join(difference)}); "
                "give another --workdir or the same config"
            )
    return path


def claim(workdir: str | pathlib.Path, config: Any) -> pathlib.Path:
    """Makes the folder this config's, or goes on with it; returns its path.

    Only a config that was found to be sound may claim a folder: the user is going to
    mend any other and start again.

    Raises:
      UserError: the folder cannot be written, or belongs to another config.
    """
    path = find(workdir, config)
    if not (path / CONFIG).exists():
        files.write_json(path / CONFIG, config.to_dict())
    return path


def differences(old: Any, new: Any) -> list[str]:
    """Returns "key: old -> new" for each setting that differs."""
    absent = "(none)"
    was, now = flat(old), flat(new)
    return [
        f"{key}: {was.get(key, absent)} -> {now.get(key, absent)}"
        for key in sorted({*was, *now})
        if was.get(key, absent) != now.get(key, absent)
    ]


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"prune.sparsity": value}; takes whatever a damaged file may hold."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found.update(flat(value, f"{prefix}.{key}" if prefix else key))
    return found


def origin(config: Any, stage: str) -> str:
    """Returns the stage that a stage and all before it started from.

    One that takes layers of another has a model of its own: it is where it starts.
    """
    while config[stage].start and not config[stage].layers:
        stage = config[stage].start
    return stage


def artifact_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns where a stage's artifact lies."""
    return at / "artifacts" / f"{name}.pare"


def record_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file that tells that a stage is finished."""
    return at / "stages" / f"{name}.json"


def choices_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file that keeps what a stage chose before it trained."""
    return at / "stages" / f"{name}.choices.json"


def cache_path(at: pathlib.Path, name: str) -> pathlib.Path:
    """Returns where what a stage's teacher said is kept, unless it says where."""
    return at / "caches" / f"{name}.array_record"
