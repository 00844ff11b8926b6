"""The training loop: calls of several steps, checks, checkpoints, and what broke."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, program, tree
from lib.data import pipeline
from lib.train import checkpoint, interrupt, parallel, step

Log = Callable[[int, dict[str, float]], None]  # (steps taken, metrics)


class NotFinite(errors.RunError):
    """Training met NaN or infinity; the message says where."""


class Pace(NamedTuple):
    """How many steps between what.

    Attributes:
      steps: of the whole stage.
      call: of one compiled call.
      log: between two records of metrics; a multiple of `call`.
      save: between two validations and checkpoints; a multiple of `log`.
    """

    steps: int
    call: int
    log: int
    save: int


def has_convolution(network: step.Network, *args: Any) -> bool:
    """Returns whether the network's program convolves; nothing is computed."""
    sites = program.sites(network)(*args)
    return any(s.primitive == "conv_general_dilated" for s in sites)


def pace(*, steps: int, log: int, save: int, call: int, convolves: bool) -> Pace:
    """Returns a pace whose parts divide one another.

    Args:
      steps: of the stage, at least 1.
      log: steps between records of metrics.
      save: steps between checkpoints, rounded to a multiple of `log`.
      call: steps of one compiled call; 0 to choose: on a CPU, 1 for programs with a
        convolution, which XLA runs several times slower inside a scan; else as many
        as `log` allows, up to 50.
      convolves: whether the program has a convolution.
    """
    log = max(1, min(log, steps))
    if not call:
        slow_scan = convolves and jax.default_backend() == "cpu"
        call = 1 if slow_scan else 50
    call = max(d for d in range(1, min(call, log) + 1) if log % d == 0)
    return Pace(steps, call, log, max(log, round(save / log) * log))


def fit(
    *,
    recipe: step.Recipe,
    state: step.State,
    restored: checkpoint.Restored | None,
    feed: pipeline.Feed,
    fixed: step.Fixed,
    pace: Pace,
    parallel_by: str,
    validate: Callable[[step.State], dict[str, float]],
    eligible: int,
    patience: int,
    checkpoints: checkpoint.Checkpoints,
    log: Log,
    stop: Callable[[], bool],
) -> step.State:
    """Trains from a checkpoint, or from `state`, to the last step.

    Or, with patience, to where validations have long been no better. The best is on
    disk, so a run that goes on from a checkpoint ends at the same step.

    Args:
      recipe: what is trained.
      state: before the first step.
      restored: the checkpoint to go on from; None to begin.
      feed: of training batches, at its beginning.
      fixed: what the step reads; its `resident` is the feed's.
      pace: how often what happens.
      parallel_by: a key of `parallel.PARALLEL`.
      validate: state -> {"accuracy", "loss", ...} on the validation split.
      eligible: the first step count whose checkpoint may be the best: before it, a
        schedule still moves.
      patience: validations without a new best after which training ends; 0: it does
        not. One as good as the best is a new best.
      checkpoints: of this stage.
      log: is given metrics, averaged over `pace.log` steps, and validations.
      stop: whether the run was asked to end.

    Raises:
      NotFinite: with the step, the terms and the leaf; the last good checkpoint stays.
      Interrupted: after saving, when `stop()` says so.
    """
    start = state, feed.state()
    if restored is not None:
        state = restored.state
        feed.restore(restored.feed)
    advance = functools.partial(_advance, take=feed.take)
    runner = _runners(parallel_by, recipe, advance)
    state, on_device = runner(0).put(state), runner(0).put(fixed)
    done = restored.step if restored else 0
    window: list[Any] = []

    def tired() -> bool:
        best = checkpoints.best_step()
        waited = 0 if best is None else done - best
        return bool(patience) and waited >= patience * pace.save

    while done < pace.steps and not tired():
        call = _until(recipe, pace, done) - done
        state, metrics = runner(done).run(state, feed.next(call), on_device)
        done += call
        window.append(metrics)
        last = done == pace.steps
        stopping = stop()
        if not (done % pace.log == 0 or last or stopping):
            continue
        means = _means(window)
        if means is None:
            raise _blame(recipe, start, feed, on_device, pace, parallel_by, checkpoints)
        window = []
        log(done, means)
        due = done % pace.save == 0 or last
        if not (due or stopping):
            continue
        now = runner(done).get(state)
        if not all(np.isfinite(x).all() for x in _floats(now)):
            raise _blame(recipe, start, feed, on_device, pace, parallel_by, checkpoints)
        accuracy = None
        if due:  # even when stopping: the best has to be that of an undisturbed run
            found = validate(now)
            log(done, {f"validation_{k}": v for k, v in found.items() if k != "count"})
            accuracy = found["accuracy"] if done >= eligible else None
        checkpoints.save(done, now, feed.state(), accuracy)
        if stopping and not last:
            checkpoints.wait()
            raise interrupt.Interrupted(f"asked to stop: saved step {done}")
    checkpoints.wait()
    return runner(done).get(state)


def _advance(recipe: step.Recipe, state, rows, fixed, axis, *, take):
    return step.advance(recipe, take, state, rows, fixed, axis)


def _runners(parallel_by: str, recipe: step.Recipe, advance: Callable[..., Any]):
    """Returns steps taken -> the runner of what follows; of two recipes, so two.

    Args:
      parallel_by: a key of `parallel.PARALLEL`.
      recipe: what is trained.
      advance: (recipe, state, rows, fixed, axis) -> (state, metrics).
    """

    @functools.cache
    def made(train: bool) -> parallel.Runner:
        one = functools.partial(advance, recipe._replace(train=train))
        return parallel.PARALLEL[parallel_by](one)

    return lambda done: made(step.after(recipe, done).train)


def _until(recipe: step.Recipe, pace: Pace, done: int) -> int:
    """Returns the step at which the compiled call that begins at `done` ends."""
    ends = [done - done % pace.call + pace.call, pace.steps]
    if recipe.freeze_norm is not None and done < recipe.freeze_norm:
        ends.append(recipe.freeze_norm)
    return min(ends)


def _means(window: list[Any]) -> dict[str, float] | None:
    """Returns each metric's mean over the steps of the window; None if not finite."""
    columns = {k: np.concatenate([np.asarray(m[k]) for m in window]) for k in window[0]}
    if not all(np.isfinite(column).all() for column in columns.values()):
        return None
    return {k: float(column.mean()) for k, column in columns.items()}


def _floats(state: step.State) -> list[np.ndarray]:
    """Returns what must stay finite of a state, on the host."""
    parts = (state.code, state.variables, state.ranges, state.heads)
    return jax.tree.leaves(jax.device_get(parts))


def _blame(
    recipe: step.Recipe,
    start: tuple[step.State, dict[str, Any]],
    feed: pipeline.Feed,
    on_device: Any,
    pace: Pace,
    parallel_by: str,
    checkpoints: checkpoint.Checkpoints,
) -> NotFinite:
    """Returns the error for a run that met NaN or infinity, found by replaying it.

    The run is replayed step by step from the last good checkpoint: looking at every
    gradient while all is well would cost every step.
    """
    checkpoints.wait()
    state, position = start
    restored = checkpoints.restore(state)
    saved = "there is no checkpoint yet"
    if restored is not None:
        state, position = restored.state, restored.feed
        saved = f"the last good checkpoint is {checkpoints.directory}/{restored.step}"
    feed.restore(position)

    def look(recipe, state, rows, fixed, axis):
        found, key = step.gradients(recipe, feed.take, state, rows, fixed, axis)
        new, metrics = step.apply(recipe, state, found, key)
        parts = (  # in this order; jit sorts the keys of a dict
            {"weights": state.code},
            {"gradient": found.dense},
            {"gradient of heads": found.heads},
            {"updated": {"weights": new.code, "variables": new.variables}},
            {"updated": {"heads": new.heads}},
        )
        ranges = {
            f"range of {site} {side}": jnp.stack(bounds)
            for site, sides in new.ranges.items()
            for side, bounds in sides.items()
        }
        finite = [
            {path: jnp.isfinite(x).all() for path, x in leaves.items()}
            for leaves in (*map(tree.flatten, parts), ranges)
        ]
        return new, (metrics, finite)

    runner = _runners(parallel_by, recipe, look)
    state = runner(0).put(state)
    for done in range(restored.step if restored else 0, pace.steps):
        state, seen = runner(done).run(state, feed.next(1), on_device)
        metrics, finite = jax.device_get(seen)
        terms = [name for name, value in metrics.items() if not np.isfinite(value)]
        leaves = [path for part in finite for path, fine in part.items() if not fine]
        if terms or leaves:
            return NotFinite(
                f"training met NaN or infinity at step {done + 1}; terms: "
                f"{', '.join(terms) or 'none'}; first leaf: "
                f"{leaves[0] if leaves else 'none'}; {saved}"
            )
    return NotFinite(f"training met NaN or infinity, but not when replayed; {saved}")
