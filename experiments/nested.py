"""Settings chosen inside each fold, so that choosing them is judged as well.

Nested cross-validation (Varma & Simon 2006, BMC Bioinformatics 7:91): the training part
of each outer fold is cut into folds of its own, the setting that does best in those is
trained on all of that part, and judged on what the outer fold holds out, which no
choice has seen.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import populations, programs
from lib import errors, files, tree
from lib.data import dataset, subsets

Settings = dict[str, Any]


class Choice(NamedTuple):
    """What was chosen for an outer fold.

    Attributes:
      settings: {path of a field: value}.
      accuracy: the mean over the inner folds that chose it.
    """

    settings: Settings
    accuracy: float


def check(config: Any, settings: Any) -> None:
    """Raises a `UserError` for a grid with fields or values that do not fit."""
    known = [name.replace("/", ".") for name in tree.flatten(config.to_dict())]
    for row in settings.search:
        if len(row) != 2 or not isinstance(row[1], tuple) or len(row[1]) < 2:
            raise errors.UserError(
                "cross_validate.search: a row is (field, values), with at least 2 "
                f"values in a tuple, got {row!r}"
            )
        if row[0] not in known:
            raise errors.UserError(
                f"cross_validate.search: unknown field {row[0]!r}; "
                f"{errors.hint(row[0], known)}"
            )
        if not row[0].startswith(f"{settings.stage}.") and row[0].split(".")[0] in (
            *config.stages,
            "cross_validate",
            "data",
            "experiment",
            "seed",
            "stages",
            "xla_flags",
        ):
            raise errors.UserError(
                f"cross_validate.search: {row[0]} is no setting of how "
                f"{settings.stage} trains"
            )
    if settings.search and settings.inner < 2:
        raise errors.UserError(
            f"cross_validate.inner is at least 2 folds, got {settings.inner}"
        )
    for one in grid(settings.search):
        populations.check(programs.changed(config, one), settings, "cross_validate")


def grid(search: Sequence[tuple[str, Sequence[Any]]]) -> list[Settings]:
    """Returns every combination of the values, the last field fastest."""
    names = [field for field, _ in search]
    values = itertools.product(*(values for _, values in search))
    return [dict(zip(names, one, strict=True)) for one in values]


class Programs:
    """The programs of a grid: one, but for fields that it cannot trace."""

    def __init__(self, config: Any, data: dataset.Dataset, pool: subsets.Pool):
        """Compiles nothing yet.

        Args:
          config: the whole config, with `cross_validate`.
          data: the set that the pool is of.
          pool: what may be learnt from and judged on.
        """
        self._config, self._data, self._pool = config, data, pool
        self._settings = settings = config.cross_validate
        self._values = [
            field
            for field, values in settings.search
            if all(isinstance(v, int | float) for v in values)
            and programs.traces(config, settings.stage, data, field)
        ]
        self._made: dict[str, populations.Population] = {}
        self._form = ""

    def logits(self, runs: Sequence[populations.Run]) -> np.ndarray:
        """Trains the runs; returns float32 `[runs, N, classes]`, all of the pool."""
        groups: dict[str, list[int]] = {}
        for i, run in enumerate(runs):
            fixed = {k: v for k, v in run.settings.items() if k not in self._values}
            groups.setdefault(json.dumps(files.plain(fixed)), []).append(i)
        found: list[Any] = [None] * len(runs)
        for key, places in groups.items():
            mine = [self._traced(runs[i]) for i in places]
            said = self._ran(key, runs[places[0]].settings, mine)
            for i, one in zip(places, said, strict=True):
                found[i] = one
        return np.stack(found)

    def _traced(self, run: populations.Run) -> populations.Run:
        return run._replace(settings={k: run.settings[k] for k in self._values})

    def _ran(self, key: str, settings: Settings, runs: list[populations.Run]):
        if key not in self._made:
            now = programs.changed(self._config, settings)
            name = self._settings.stage
            self._made[key] = populations.Population(now, name, self._data, self._pool)
        made, together = self._made[key], self._settings.together
        if not self._form:
            self._form = made.chosen(self._settings.form, runs, together)
        return made.logits(runs, together, self._form)


def choose(
    config: Any,
    trained: Programs,
    folds: Sequence[subsets.Fold],
    pool: subsets.Pool,
) -> list[Choice]:
    """Returns the setting of each outer fold that does best in its inner folds.

    By mean accuracy; of equal ones that of the lower mean loss, and then the first.

    Args:
      config: the whole config, with `cross_validate`.
      trained: the programs of its grid.
      folds: the outer ones.
      pool: what they are of.
    """
    options = grid(config.cross_validate.search)
    runs, held_out = [], []
    for fold in folds:
        for inner in inside(config, fold, pool):
            for one in options:
                seed = config.seed + fold.repeat
                runs.append(populations.Run(inner.train, seed, one))
                held_out.append(inner.held_out)
    judged = [
        populations.judged(said[part], pool.label[part])
        for said, part in zip(trained.logits(runs), held_out, strict=True)
    ]
    shape = (len(folds), config.cross_validate.inner, len(options))
    accuracy, loss = (
        np.reshape([one[key] for one in judged], shape).mean(1)
        for key in ("accuracy", "loss")
    )
    best = [np.lexsort((lo, -hi))[0] for hi, lo in zip(accuracy, loss, strict=True)]
    return [
        Choice(options[i], float(row[i])) for i, row in zip(best, accuracy, strict=True)
    ]


def inside(config: Any, fold: subsets.Fold, pool: subsets.Pool) -> list[subsets.Fold]:
    """Returns the folds of an outer fold's training part, as indices into the pool."""
    settings = config.cross_validate
    cut = subsets.folds(
        pool.label[fold.train],
        count=settings.inner,
        repeats=1,
        stratified=settings.stratified,
        seed=config.seed + fold.repeat,
    )
    return [
        one._replace(train=fold.train[one.train], held_out=fold.train[one.held_out])
        for one in cut
    ]
