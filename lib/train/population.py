"""Whole training runs as functions of their settings: one program serves a sweep.

Settings that are data (sparsity, bits, penalties, learning rate, seed) do not change
the program, so it is compiled once for all of them, whether the runs go one after
another (`jax.jit`) or side by side (`jax.vmap`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lib.objectives import metrics
from lib.train import step


class Member(NamedTuple):
    """What one run of a population is given.

    Attributes:
      settings: {name: scalar}; may be traced.
      seed: int32 scalar, of the weights and of what the steps draw.
      rows: what the feed gives for all steps; leaves `[steps, batch, ...]`.
    """

    settings: dict[str, jax.Array]
    seed: jax.Array
    rows: Any


class Trained(NamedTuple):
    """What one run of a population leaves.

    Attributes:
      losses: float32 `[steps]`; 0 for steps that were not taken.
      steps: int32 scalar, how many were taken.
      correct: int32 scalar, right answers on the examples that were held out.
      nonzero: int32 scalar, weights that are not zero.
    """

    losses: jax.Array
    steps: jax.Array
    correct: jax.Array
    nonzero: jax.Array


class Best(NamedTuple):
    """That a run leaves the weights that validated best, and may end early.

    Attributes:
      every: steps between two validations; one more is after the last step.
      eligible: the first step whose weights may be the best; may be traced.
      patience: validations without a new best after which a run ends; 0: it does not.
    """

    every: int
    eligible: Any
    patience: int


def beginnings(members: Sequence[Member]) -> list[Member]:
    """Returns members with a twentieth of their steps, at least 1: for a pilot."""
    steps = max(1, jax.tree.leaves(members[0].rows)[0].shape[0] // 20)
    return [m._replace(rows=jax.tree.map(lambda r: r[:steps], m.rows)) for m in members]


Recipes = Callable[[dict[str, Any]], step.Recipe]
Init = Callable[[jax.Array], tuple[Any, Any]]
Take = Callable[[Any, Any], Any]
Prepare = Callable[..., Any]


class _Begun(NamedTuple):
    recipe: step.Recipe
    state: step.State
    advance: Callable[[step.State, Any], tuple[step.State, step.Metrics]]


def _begin(
    recipe_of: Recipes, init: Init, take: Take, member: Member, resident: Any, batch
) -> _Begun:
    """Returns a run before its first step; of the batch only shapes are read."""
    recipe = recipe_of(member.settings)
    key = jax.random.key(member.seed)
    params, variables = init(key)
    fixed = step.Fixed(member.seed, resident, None)

    def advance(state, rows):
        return step.advance(recipe, take, state, rows, fixed)

    key = jax.random.fold_in(key, 1)
    heads = step.fresh_heads(recipe, key, (params, variables, {}), None, batch)
    return _Begun(recipe, step.init(recipe, params, variables, {}, heads), advance)


def _decoded(recipe: step.Recipe, state: step.State) -> tuple[Any, Any]:
    """Returns (params, variables) of what a state has trained."""
    params = recipe.transform.decode(step.trained(state), state.codec)
    return params, state.variables


class _Watched(NamedTuple):
    """A run that is validated, between two validations."""

    state: step.State
    losses: jax.Array
    done: jax.Array  # steps taken
    weights: Any  # (params, variables) of the best so far
    correct: jax.Array  # of them; -1 before there are any
    found: jax.Array  # the step at which they were


def _best(
    begun: _Begun, rows: Any, best: Best, judge: Callable[[Any], jax.Array]
) -> _Watched:
    """Returns a run after its last step, or after it ran out of patience.

    Side by side, a run that has ended is masked until all have: `lax.while_loop` under
    `vmap`.

    Args:
      begun: the run.
      rows: leaves `[steps, batch, ...]`.
      best: which weights it leaves.
      judge: (params, variables) -> right answers.
    """
    steps = jax.tree.leaves(rows)[0].shape[0]
    whole, rest = divmod(steps, best.every)

    def goes_on(now):
        waited = now.done - now.found
        tired = (now.correct >= 0) & (waited >= best.patience * best.every)
        return ~tired if best.patience else jnp.bool(True)

    def taken(now, some, count):
        state, seen = lax.scan(begun.advance, now.state, some)
        done = now.done + count
        losses = lax.dynamic_update_slice(now.losses, seen["loss"], (now.done,))
        weights = _decoded(begun.recipe, state)
        correct = judge(weights)
        # Of equal ones the latest, as of checkpoints.
        better = (done >= best.eligible) & (correct >= now.correct)
        kept, correct, found = jax.tree.map(
            lambda a, b: jnp.where(better, a, b),
            (weights, correct, done),
            (now.weights, now.correct, now.found),
        )
        return _Watched(state, losses, done, kept, correct, found)

    def part(start, count):
        return jax.tree.map(lambda r: lax.dynamic_slice_in_dim(r, start, count), rows)

    zero = jnp.int32(0)
    first = _decoded(begun.recipe, begun.state)
    now = _Watched(begun.state, jnp.zeros(steps), zero, first, zero - 1, zero)
    now = lax.while_loop(
        lambda now: (now.done < whole * best.every) & goes_on(now),
        lambda now: taken(now, part(now.done, best.every), best.every),
        now,
    )
    if rest:
        on, last = goes_on(now), taken(now, part(whole * best.every, rest), rest)
        now = jax.tree.map(lambda a, b: jnp.where(on, a, b), last, now)
    return now


def run_of(
    recipe_of: Recipes,
    init: Init,
    take: Take,
    plain: Prepare,
    best_of: Callable[[dict[str, Any]], Best] | None = None,
) -> Callable[[Member, Any, Any], Trained]:
    """Returns (member, resident, held out) -> `Trained`, to be jitted or vmapped.

    Args:
      recipe_of: settings -> what is trained; without a teacher and without rules for
        activations.
      init: PRNG key -> (params, variables).
      take: the feed's.
      plain: (None, raw batch) -> batch, without augmentation: what is held out.
      best_of: settings -> which weights a run leaves; None: its last.

    `resident` is what the feed keeps on the device; `held out` is a raw batch of the
    validation split.
    """

    def run(member: Member, resident: Any, held_out: Any) -> Trained:
        batch = plain(None, held_out)
        begun = _begin(recipe_of, init, take, member, resident, batch)

        def judge(weights):
            outputs, _ = begun.recipe.network(*weights, {}, batch["input"])
            found = metrics.classification(outputs, batch)["correct"]
            return found.astype(jnp.int32)

        if best_of is None:
            state, seen = lax.scan(begun.advance, begun.state, member.rows)
            losses, done = seen["loss"], state.step
            weights = _decoded(begun.recipe, state)
            correct = judge(weights)
        else:
            best = best_of(member.settings)
            now = _best(begun, member.rows, best, judge)
            losses, done, weights, correct = now[1:5]
        nonzero = sum(jnp.count_nonzero(w) for w in jax.tree.leaves(weights[0]))
        return Trained(losses, done, correct, nonzero.astype(jnp.int32))

    return run


def logits_of(
    recipe_of: Recipes, init: Init, take: Take, plain: Prepare
) -> Callable[[Member, Any, Any], tuple[jax.Array, jax.Array]]:
    """Returns (member, resident, shown) -> (losses `[steps]`, logits).

    The arguments are those of `run_of`. `shown` are stored examples
    `[batches, size, ...]`; the logits, `[batches, size, classes]`, are what the trained
    network says of them, a batch at a time.
    """

    def run(member: Member, resident: Any, shown: Any) -> tuple[jax.Array, jax.Array]:
        first = jax.tree.map(lambda r: r[0], member.rows)
        batch = plain(None, take(resident, first))
        begun = _begin(recipe_of, init, take, member, resident, batch)
        state, seen = lax.scan(begun.advance, begun.state, member.rows)
        weights = _decoded(begun.recipe, state)

        def said(stored):
            given = plain(None, {"input": stored})["input"]
            return begun.recipe.network(*weights, {}, given)[0][0]

        return seen["loss"], lax.map(said, shown)

    return run
