"""Stages that all trials of a search have in common: trained once, or of a run."""

import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from experiments import workdir
from experiments.tuning import trials
from lib import errors, files
from lib.report import metrics
from lib.train import interrupt

ALWAYS = ("data", "seed")  # what any stage depends on


def settings(run: str, stages: Sequence[str], base: Any) -> dict[str, Any]:
    """Returns the data, the seed and the stages of a finished run, as it had them.

    Args:
      run: its folder.
      stages: those that are taken from it.
      base: the config of the search's runs.

    Returns:
      {path of a field: value}, where it differs from the base.

    Raises:
      UserError: it is no folder of a run, a stage is not finished there, or it was
        started with a setting that the base does not have.
    """
    at = pathlib.Path(run).expanduser()
    if not (at / workdir.CONFIG).exists():
        raise errors.UserError(f"tune.run: {run} holds no run; it has no config.json")
    for name in stages:
        for path in (workdir.artifact_path(at, name), workdir.record_path(at, name)):
            if not path.exists():
                raise errors.UserError(f"tune.run: stage {name!r} has no file {path}")
    had = workdir.flat(files.read_json(at / workdir.CONFIG))
    now = workdir.flat(files.plain(base.to_dict()))
    found = {
        path: _tuples(value)
        for path, value in had.items()
        if path.split(".")[0] in (*ALWAYS, *stages)
        and (path not in now or now[path] != value)
    }
    for path in found:
        if path not in now and ".model." not in path:  # models have their own fields
            raise errors.UserError(
                f"tune.run: {run} was started with {path}, which the base does not "
                "have; it is of another version or config"
            )
    return found


def check(stages: Sequence[str], base: Any, searched: Iterable[str]) -> None:
    """Raises a `UserError` unless shared stages are the first, and not searched.

    Args:
      stages: `tune.shared`.
      base: the config of the search's runs.
      searched: the paths of the fields that trials differ in.
    """
    stages = tuple(stages)
    if base.stages[: len(stages)] != stages or len(stages) == len(base.stages):
        raise errors.UserError(
            f"tune.shared is the first of the stages {base.stages}, not all of them, "
            f"got {stages}"
        )
    for path in searched:
        if stages and path.split(".")[0] in (*ALWAYS, *stages, "stages"):
            raise errors.UserError(
                f"tune.search: {path} changes a stage that tune.shared has all trials "
                "share"
            )


def train(config: Any, folder: pathlib.Path) -> None:
    """Trains the stages of a config, in a folder of their own."""
    with interrupt.asked_to_stop() as stop:
        trials.train(config, folder, metrics.MetricsWriter, stop)


def take(run: pathlib.Path, stages: Sequence[str], folder: pathlib.Path) -> None:
    """Copies the finished stages of a run into a trial's folder."""
    for name in stages:
        for path in (workdir.artifact_path, workdir.record_path):
            old, new = path(run, name), path(folder, name)
            if not new.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                with files.whole(new) as temporary:
                    shutil.copyfile(old, temporary)


def _tuples(value: Any) -> Any:
    """Returns what JSON keeps as lists as the tuples that configs have."""
    if isinstance(value, list):
        return tuple(_tuples(one) for one in value)
    return value
