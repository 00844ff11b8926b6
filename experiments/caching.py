"""A stage's teacher run once over the training split, its logits kept on disk."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import teaching, workdir
from lib import errors, files, objectives
from lib.data import augment, dataset, inputs, pipeline, teacher_cache
from lib.report import progress
from lib.train import teachers

TEACHERS = "teachers"  # of a label: what is known once they are trained


def check(name: str, stage: Any) -> None:
    """Raises a `UserError` for a cache that a stage cannot have."""
    if stage.cache < 0:
        raise errors.UserError(f"{name}.cache is at least 0, got {stage.cache}")
    if stage.cache_path and not stage.cache:
        raise errors.UserError(
            f"{name}.cache_path is set, but {name}.cache is 0; set how many logits of "
            "an example it holds"
        )
    if not stage.cache:
        return
    if not teaching.names(stage):
        raise errors.UserError(
            f"{name}.cache keeps logits of earlier stages that teach, and "
            f"{name}.teacher is {stage.teacher!r}"
        )
    for augmentation in stage.augment:
        if augmentation in augment.MIXINGS:
            raise errors.UserError(
                f"{name}: {augmentation} mixes examples, and a cache holds logits of "
                f"examples as they are; set {name}.cache=0"
            )
    for term in stage.objective:
        if term in objectives.NEEDS_FEATURES:
            raise errors.UserError(
                f"{name}: term {term!r} reads the teacher's features, and a cache "
                f"holds logits only; set {name}.cache=0"
            )


def look(config: Any, data: dataset.Dataset) -> None:
    """Raises a `UserError` for a `cache_path` that is known not to do, before any run.

    A file that is there has to be of these data and of as many logits; where there is
    none, one has to be writable. Stages that share a path have to be taught alike.
    Whether a file is of these teachers shows when they are trained: see `cached`.
    """
    seen: dict[pathlib.Path, tuple[str, Any]] = {}
    for name in config.stages:
        stage = config[name]
        if not stage.cache_path:
            continue
        path = _path(stage)
        taught = teaching.names(stage), min(stage.cache, data.classes)
        other, before = seen.setdefault(path, (name, taught))
        if taught != before:
            raise errors.UserError(
                f"{name}.cache_path is that of {other}, and both keep other logits: "
                f"{_told(taught)}, and {_told(before)}; give another path"
            )
        if path.is_file():
            label = _label(stage, data)
            found = teacher_cache.Cache(path, label, unknown=(TEACHERS,))
            found.gather(np.zeros(1, np.int64))
        else:
            files.may_write(path)


def _told(taught: tuple[Sequence[str], int]) -> str:
    return f"{taught[1]} of {', '.join(taught[0])}"


def _path(stage: Any) -> pathlib.Path:
    return pathlib.Path(stage.cache_path).expanduser().absolute()


def _label(stage: Any, data: dataset.Dataset) -> dict[str, Any]:
    """Returns what a cache says of itself, but for its teachers."""
    return {
        "data": teacher_cache.fingerprint(data.train),
        "inputs": _digest(inputs.to_label(data.inputs)),
        "examples": len(data.train),
        "classes": data.classes,
        "k": min(stage.cache, data.classes),
    }


def cached(
    config: Any,
    name: str,
    data: dataset.Dataset,
    at: pathlib.Path,
    teach: teachers.Teacher,
    taught: Any,
) -> dataset.Dataset:
    """Returns the data with the teacher's logits in each training example.

    They are of examples as they are, not augmented, and are read from the stage's file
    if it is there; otherwise the teacher runs over the training split, and writes it.

    Args:
      config: the whole config.
      name: of the stage that is taught.
      data: of the run.
      at: the run's folder.
      teach: the teacher.
      taught: its weights.

    Raises:
      UserError: the file is of another teacher, other data, or another `cache`.
    """
    stage = config[name]
    path = _path(stage) if stage.cache_path else workdir.cache_path(at, name)
    label = _label(stage, data) | {TEACHERS: _digests(at, teaching.names(stage))}
    if not path.exists():
        count = teacher_cache.write(
            path, label, _rows(config, data, label["k"], teach, taught)
        )
        progress.say(
            f"{name}: kept {label['k']} of {data.classes} logits of {count} examples, "
            f"{path.stat().st_size:,} bytes"
        )
    train = teacher_cache.Cache(path, label).attach(data.train)
    return data._replace(train=train)


def _digest(label: dict[str, Any]) -> str:
    """Returns a hash of a label, which may hold a whole vocabulary."""
    return hashlib.sha256(json.dumps(label, sort_keys=True).encode()).hexdigest()


def _digests(at: pathlib.Path, names: Sequence[str]) -> list[str]:
    """Returns a hash of each teacher's artifact."""
    paths = (workdir.artifact_path(at, name) for name in names)
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def _rows(config: Any, data: dataset.Dataset, k: int, teach: Any, taught: Any):
    """Yields what is kept of the training examples, in their order, by batches."""
    prepare = pipeline.preparation(data.inputs, None)

    @jax.jit
    def kept(weights, raw):
        return teacher_cache.top(teach(weights, prepare(None, raw))[0], k)

    for raw in pipeline.eval_batches(data.train, config.eval_batch_size):
        rows, real = jax.device_get(kept(taught, raw)), raw["weight"] > 0
        yield {name: np.asarray(x)[real] for name, x in rows.items()}
