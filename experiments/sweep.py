"""Trains one stage at every setting of a grid, in one compiled program.

Settings are data, so the grid costs one compilation: its runs go one after another or
side by side under `vmap`, whichever a pilot finds faster. Judged on validation data.
"""

import itertools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipe, workdir
from experiments.benchmarks import sweep_page
from lib import errors, files, models, tree
from lib.data import dataset, examples, pipeline, splits
from lib.deploy import measure
from lib.report import progress
from lib.train import population, step

NAME = "sweep.json"
PAGE = "SWEEP.md"
FORMS = ("auto", "sequential", "vmapped")
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
    pilot = job.pilot() if form == "auto" else {}
    if pilot:
        form = min(pilot, key=pilot.get)
        progress.say(f"a pilot chose {form}: {pilot}")
    found, begun, seconds = job.timed(form)
    times = {form: seconds}
    for other in config.sweep.compare:
        if other not in times:
            _, again, times[other] = job.timed(other)
            same(begun, again, form, other)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "form": form,
        "pilot_seconds": pilot,
        "seconds": times,
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
        known = (*FORMS, "compiled") if form != sweep.form else FORMS
        errors.lookup(dict.fromkeys(known), form, "form of a sweep")
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
    if not sweep.seeds:
        raise errors.UserError("sweep.seeds is empty; name at least one seed")
    stage = config[config.sweep.stage]
    check_stage("sweep", config.sweep.stage, stage)
    # Each value by itself, as the technique judges numbers.
    for settings, _ in settings_of(config):
        recipe.build_chain(changed(config, settings), stage)


def check_stage(who: str, name: str, stage: Any) -> None:
    """Raises a `UserError` for a stage that does not fit into one program."""
    beyond = stage.weights or stage.prepare or stage.freeze_norm != 1
    if stage.teacher or stage.start or stage.program or beyond:
        raise errors.UserError(
            f"{who}: {name} starts afresh, without a teacher and without rounding "
            "activations; clear its start, teacher, program, weights, prepare and "
            "freeze_norm"
        )


def settings_of(config: Any) -> list[tuple[Settings, int]]:
    """Returns (settings, seed) of every run, in the order of the grid."""
    sweep = config.sweep
    return [
        (dict(zip(sweep.fields, values, strict=True)), seed)
        for *values, seed in itertools.product(*sweep.grid, sweep.seeds)
    ]


def changed(config: Any, settings: dict[str, Any]) -> Any:
    """Returns a copy of the config with other values, which may be traced."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        for field, value in settings.items():
            *groups, last = field.split(".")
            group = copy
            for name in groups:
                group = group[name]
            group[last] = value
    return copy


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
        self.members, self.resident = members(self.stage, data, grid)
        self.held_out = held_out(data)
        self.forms = forms(*program_of(config, config.sweep.stage, data))

    def timed(self, form: str) -> tuple[list[dict[str, float]], np.ndarray, float]:
        """Returns what each run found, its first losses, and all their seconds.

        The losses are `[runs, BEGIN]`; the seconds include compiling.
        """
        began = time.perf_counter()
        run = self.forms[form]
        trained = jax.device_get(run(self.members, self.resident, self.held_out))
        seconds = time.perf_counter() - began
        found = [told(one, self.held_out) for one in trained]
        return found, np.stack([one.losses[:BEGIN] for one in trained]), seconds

    def pilot(self) -> dict[str, float]:
        """Returns what `pilot` finds of these runs."""
        return pilot(self.forms, self.members, self.resident, self.held_out)


def members(
    stage: Any, data: dataset.Dataset, grid: Sequence[tuple[Settings, int]]
) -> tuple[list[population.Member], Any]:
    """Returns what each run of a stage is given, and what all read on the device.

    Args:
      stage: its settings.
      data: is put on the device.
      grid: (settings that are traced, seed) of each run.

    Raises:
      UserError: the data are on disk.
    """
    if not isinstance(data.train.source, examples.Arrays):
        raise errors.UserError(
            f"a sweep: data set {data.name!r} is larger than data.resident_bytes, and "
            "all runs share it in memory; raise that"
        )
    found = []
    for settings, seed in grid:
        feed = pipeline.OnDevice(
            data.train, batch_size=stage.batch_size, seed=seed, sharding=None
        )
        numbers = {k: jnp.float32(v) for k, v in settings.items()}
        rows = feed.next(stage.steps)
        found.append(population.Member(numbers, jnp.int32(seed), rows))
    return found, feed.resident


def held_out(data: dataset.Dataset) -> Any:
    """Returns the whole validation split as one batch on the device."""
    judged = splits.may_choose(data.validation, "the best setting")
    (batch,) = pipeline.eval_batches(judged, len(judged))
    return jax.device_put(batch)


def told(one: population.Trained, held_out: Any) -> dict[str, float]:
    """Returns what a run found, as numbers."""
    return {
        "accuracy": int(one.correct) / int(held_out["weight"].sum()),
        "nonzero": int(one.nonzero),
        "loss": float(one.losses[-1]),
    }


def pilot(
    forms: dict[str, Callable],
    members: Sequence[population.Member],
    resident: Any,
    held_out: Any,
) -> dict[str, float]:
    """Returns the seconds that a twentieth of the steps takes in each form."""
    steps = max(1, jax.tree.leaves(members[0].rows)[0].shape[0] // 20)
    short = [
        m._replace(rows=jax.tree.map(lambda r: r[:steps], m.rows)) for m in members
    ]
    seconds = {}
    for form in FORMS[1:]:
        run, args = forms[form], (short, resident, held_out)
        jax.block_until_ready(run(*args))  # compiles
        began = time.perf_counter()
        jax.block_until_ready(run(*args))
        seconds[form] = time.perf_counter() - began
    return seconds


def program_of(
    config: Any, name: str, data: dataset.Dataset
) -> tuple[Callable, Callable]:
    """Returns settings -> recipe, and (settings -> recipe) -> a run of a member.

    Args:
      config: of a run.
      name: of its stage that is trained.
      data: that it trains on.
    """
    stage = config[name]
    module = recipe.build_model(stage.model, data.classes)
    network = step.Network(models.make_apply(module))

    def recipe_of(settings):
        now = changed(config, settings)
        return recipe.build(now, now[name], network, None, data.inputs, data.classes)[0]

    def init(key):
        return models.init(module, key, data.shape, data.inputs.DTYPE)

    def run_of(recipe_of):
        plain = pipeline.preparation(data.inputs, None)
        return population.run_of(recipe_of, init, pipeline.OnDevice.take, plain)

    return recipe_of, run_of


def forms(recipe_of: Callable, run_of: Callable) -> dict[str, Callable]:
    """Returns {form: (members, resident, held out) -> [Trained]} of the same runs.

    `sequential` and `vmapped` are one program each; `compiled` is a program a run, what
    one does where settings are constants of the program.
    """
    run = run_of(recipe_of)
    one, side_by_side = jax.jit(run), jax.jit(jax.vmap(run, in_axes=(0, None, None)))

    def sequential(members, resident, held_out):
        return [one(member, resident, held_out) for member in members]

    def vmapped(members, resident, held_out):
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
        trained = side_by_side(stacked, resident, held_out)
        return [jax.tree.map(lambda x, i=i: x[i], trained) for i in range(len(members))]

    def compiled(members, resident, held_out):
        def alone(m):
            # Of numbers, before anything is traced, as without a sweep.
            made = recipe_of({name: float(x) for name, x in m.settings.items()})
            return jax.jit(run_of(lambda _: made))

        return [alone(m)(m, resident, held_out) for m in members]

    return {"sequential": sequential, "vmapped": vmapped, "compiled": compiled}


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
