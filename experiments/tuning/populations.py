"""Trials that differ only in values, trained as one program.

A field is a value if the program of a run can be traced without knowing it: learning
rates, penalties, sparsity, bits, the seed. Trials that differ in anything else (batch
size, widths, techniques) are groups of a program each. A group's runs go one after
another, side by side, or so on every device, whichever a twentieth of the steps shows
to be faster.

Such a run has no checkpoint and no packed file; it is judged by accuracy and by the
weights that are not zero. With `use="best"` and `patience` it ends early, as by itself;
side by side it is masked until all have ended.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from experiments import check, programs
from experiments.tuning import space, trials
from lib import errors, files
from lib.train import forms

OBJECTIVES = ("validation_accuracy", "nonzero")
Settings = dict[str, Any]


def check_config(tune: Any, base: Any) -> None:
    """Raises a `UserError` for a search that cannot be of populations."""
    if tune.population < 2:
        raise errors.UserError(
            f"tune.population is 0, or at least 2, got {tune.population}"
        )
    if len(base.stages) != 1 or tune.shared:
        raise errors.UserError(
            f"tune.population trains one stage, got {base.stages}; set one by "
            "tune.fixed=(('stages', ('NAME',)),)"
        )
    (name,) = base.stages
    programs.check("tune.population", name, base[name])
    known = dict.fromkeys((forms.AUTO, *forms.FORMS))
    errors.lookup(known, tune.form, "form of a population")
    if tune.pruner != "none":
        raise errors.UserError("tune.population: tune.pruner is 'none'")
    for what, _ in tune.objectives:
        errors.lookup(dict.fromkeys(OBJECTIVES), what, "objective of a population")


class Populations:
    """Programs of groups of trials, each compiled once.

    Attributes:
      values: paths of the fields that are values.
      told: what was chosen for each program, in words.
    """

    def __init__(self, base: Any, rows: Sequence[space.Row], size: int, form: str):
        """Loads the data, and finds which fields are values.

        Args:
          base: the config that is searched, of one stage.
          rows: what is searched.
          size: trials of a population.
          form: of `forms.FORMS`, or "auto": what a pilot of each program chooses.

        Raises:
          UserError: a range of floats is of a field that is no value.
        """
        check.settings(base)
        self._base, self._size, self._form = base, size, form
        (self._name,) = base.stages
        self._data = trials.loaded(base)
        check.stages(base, self._data)
        self._held_out = programs.held_out(self._data)
        self._made: dict[str, tuple[dict[str, Callable], str]] = {}
        self.told: list[dict[str, Any]] = []
        numbers = [row for row in rows if row.kind != "choice"]
        paths = [path for row in numbers for path in row.paths]
        self.values = tuple(
            p
            for p in paths
            if p == "seed" or programs.traces(base, self._name, self._data, p)
        )
        for row in rows:
            if "float" in row.kind and not set(row.paths) <= set(self.values):
                # Each trial would be compiled by itself.
                raise errors.UserError(
                    f"tune.population: {row.name} is a constant of the program, not "
                    "a value; search it by 'choice', or with tune.population=0"
                )

    def run(self, settings: Sequence[Settings]) -> list[dict[str, float] | str]:
        """Returns what was measured of each trial, or why it failed.

        Args:
          settings: {path: value} of each.
        """
        found: list[Any] = [None] * len(settings)
        groups: dict[str, list[int]] = {}
        for i, one in enumerate(settings):
            fixed = {k: v for k, v in one.items() if k not in self.values}
            groups.setdefault(json.dumps(files.plain(fixed)), []).append(i)
        for key, group in groups.items():
            try:
                ran = self._group(key, [settings[i] for i in group])
            except (errors.UserError, errors.RunError) as e:
                ran = [str(e)] * len(group)
            for i, one in zip(group, ran, strict=True):
                found[i] = one
        return found

    def _group(self, key: str, settings: Sequence[Settings]) -> list[Any]:
        fixed = {k: v for k, v in settings[0].items() if k not in self.values}
        now = space.changed(self._base, fixed)
        for one in settings:
            programs.check_values(now, self._name, one)
        grid = []
        for one in settings:
            numbers = {k: one[k] for k in self.values if k in one and k != "seed"}
            grid.append((numbers, one["seed"] if "seed" in one else now.seed))
        members, resident = programs.members(now[self._name], self._data, grid)
        made, form = self._program(key, now, members, resident)
        if form != "sequential":  # of one size, so that it compiles once
            members = members + members[-1:] * (self._size - len(members))
        trained = made[form](members, resident, self._held_out)
        return [_judged(one, self._held_out) for one in trained[: len(settings)]]

    def _program(self, key: str, now: Any, members: Any, resident: Any):
        """Returns the forms of a group's program, and the one that is faster."""
        if key not in self._made:
            check.stages(now, self._data)
            run = programs.run_of(programs.parts(now, self._name, self._data))
            made = {k: form(run) for k, form in forms.FORMS.items()}
            form, seconds = self._form, {}
            if form == forms.AUTO:
                whole = members + members[-1:] * (self._size - len(members))
                seconds = programs.pilot(made, whole, resident, self._held_out)
                form = programs.fastest(seconds, len(whole))
            self._made[key] = made, form
            self.told.append({"fixed": key, "form": form, "pilot_seconds": seconds})
        return self._made[key]


def _judged(one: Any, held_out: Any) -> dict[str, float] | str:
    """Returns what was measured of a run, or why it failed."""
    if not jnp.isfinite(one.losses).all():
        return f"training met NaN or infinity in {len(one.losses)} steps"
    found = programs.told(one, held_out)
    return {"validation_accuracy": found["accuracy"], "nonzero": found["nonzero"]}
