"""Trains one stage at every setting of a grid, in one compiled program.

Settings are data, so the grid costs one compilation: its runs go one after another or
side by side under `vmap`, whichever a pilot finds faster. Judged on validation data.
"""

import itertools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import programs, recipe, workdir
from experiments.benchmarks import sweep_page
from lib import errors, files, tree
from lib.data import dataset
from lib.deploy import measure
from lib.report import progress
from lib.train import forms

NAME = "sweep.json"
PAGE = "SWEEP.md"
BEGIN = 5  # steps whose losses all forms have to share

Settings = dict[str, float]


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Runs the grid of `config.sweep`; writes and returns `sweep.json`."""
    check(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(at, files.read_json(at / NAME))
    data = recipe.load_data(config.data)
    grid = settings_of(config)
    job = Job(config, data, grid)
    workdir.claim(at, config)
    form = config.sweep.form
    pilot = job.pilot() if form == forms.AUTO else {}
    if pilot:
        form = programs.fastest(pilot, len(grid))
    found, begun, seconds = job.timed(form)
    times = {form: seconds}
    for other in config.sweep.compare:
        if other not in times:
            _, again, times[other] = job.timed(other)
            same(begun, again, form, other)
    again = job.again([*times], config.sweep.repeats)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "form": form,
        "pilot_seconds": pilot,
        "seconds": times,
        "compiled_seconds": again,
        "runs": [
            {**settings, "seed": seed, **one}
            for (settings, seed), one in zip(grid, found, strict=True)
        ],
        "examples": len(data.validation),
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    files.write_text(at / PAGE, sweep_page.markdown(result))
    return show(at, result)


def show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints the page and where it is."""
    progress.say(sweep_page.text(result))
    progress.say(f"page: {at / PAGE}")
    return result


def check(config: Any) -> None:
    """Raises a `UserError` for a grid that cannot be run."""
    sweep = config.sweep
    for form in (sweep.form, *sweep.compare):
        more = "compiled" if form != sweep.form else forms.AUTO
        errors.lookup(dict.fromkeys((*forms.FORMS, more)), form, "form of a sweep")
    if len(sweep.fields) != len(sweep.grid) or not all(sweep.grid):
        raise errors.UserError(
            f"sweep.grid has one tuple of values for each of sweep.fields, got "
            f"{sweep.grid} for {sweep.fields}"
        )
    known = list(tree.flatten(config.to_dict()))
    for field in sweep.fields:
        if field.replace(".", "/") not in known:
            names = [name.replace("/", ".") for name in known]
            raise errors.UserError(
                f"sweep: unknown field {field!r}; {errors.hint(field, names)}"
            )
    if sweep.repeats < 0 or (sweep.repeats and "compiled" in sweep.compare):
        raise errors.UserError(
            "sweep.repeats is at least 0, and 0 with form 'compiled', got "
            f"{sweep.repeats}"
        )
    if not sweep.seeds:
        raise errors.UserError("sweep.seeds is empty; name at least one seed")
    stage = config[config.sweep.stage]
    programs.check("sweep", config.sweep.stage, stage)
    for settings, _ in settings_of(config):
        programs.check_values(config, config.sweep.stage, settings)


def settings_of(config: Any) -> list[tuple[Settings, int]]:
    """Returns (settings, seed) of every run, in the order of the grid."""
    sweep = config.sweep
    return [
        (dict(zip(sweep.fields, values, strict=True)), seed)
        for *values, seed in itertools.product(*sweep.grid, sweep.seeds)
    ]


class Job:
    """The grid with what its runs share: data on the device, and what is compiled."""

    def __init__(
        self, config: Any, data: dataset.Dataset, grid: Sequence[tuple[Settings, int]]
    ):
        """Puts the data on the device; compiles nothing.

        Raises:
          UserError: the data are on disk.
        """
        self.stage = config[config.sweep.stage]
        self.members, self.resident = programs.members(self.stage, data, grid)
        self.held_out = programs.held_out(data)
        self.forms = forms_of(programs.parts(config, config.sweep.stage, data))

    def timed(self, form: str) -> tuple[list[dict[str, float]], np.ndarray, float]:
        """Returns what each run found, its first losses, and all their seconds.

        The losses are `[runs, BEGIN]`; the seconds include compiling.
        """
        began = time.perf_counter()
        run = self.forms[form]
        trained = run(self.members, self.resident, self.held_out)
        seconds = time.perf_counter() - began
        found = [programs.told(one, self.held_out) for one in trained]
        return found, np.stack([one.losses[:BEGIN] for one in trained]), seconds

    def again(self, names: Sequence[str], repeats: int) -> dict[str, list[float]]:
        """Returns the seconds of each form once it is compiled; forms take turns.

        Args:
          names: of the forms, without "compiled", which is never compiled for good.
          repeats: how often each is timed; 0 for {}.
        """
        found: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name in names:
                found.setdefault(name, []).append(self.timed(name)[2])
        return found

    def pilot(self) -> dict[str, float]:
        """Returns what `pilot` finds of these runs."""
        return programs.pilot(self.forms, self.members, self.resident, self.held_out)


def forms_of(parts: programs.Parts) -> dict[str, forms.Form]:
    """Returns {form: (members, resident, held out) -> [Trained]} of the same runs.

    Each of `forms.FORMS` is one program; `compiled` is a program a run, what one does
    where settings are constants of the program.
    """

    def compiled(members, resident, held_out):
        def alone(m):
            # Of numbers, before anything is traced, as without a sweep.
            numbers = {name: float(x) for name, x in m.settings.items()}
            made = parts.recipe_of(numbers)
            return jax.jit(programs.run_of(parts._replace(recipe_of=lambda _: made)))

        return jax.device_get([alone(m)(m, resident, held_out) for m in members])

    run = programs.run_of(parts)
    return {**{k: make(run) for k, make in forms.FORMS.items()}, "compiled": compiled}


def same(begun: np.ndarray, again: np.ndarray, form: str, other: str) -> None:
    """Raises a `RunError` where two forms of the same runs do not begin alike.

    Later they drift apart: sums in another order tip weights over the borders of a
    grid, most of all at 2 bits.
    """
    off = np.abs(begun - again) > 1e-2 * np.abs(begun)
    if off.any():
        run, at = np.argwhere(off)[0]
        raise errors.RunError(
            f"sweep: run {run} has a loss of {again[run, at]} at step {at} {other}, of "
            f"{begun[run, at]} {form}"
        )
