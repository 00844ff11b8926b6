"""Whole training runs as functions of their settings: one program serves a sweep.

Settings that are data (sparsity, bits, penalties, learning rate, seed) do not change
the program, so it is compiled once for all of them, whether the runs go one after
another (`jax.jit`) or side by side (`jax.vmap`).
"""

from collections.abc import Callable
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
      losses: float32 `[steps]`.
      correct: int32 scalar, right answers on the examples that were held out.
      nonzero: int32 scalar, weights that are not zero.
    """

    losses: jax.Array
    correct: jax.Array
    nonzero: jax.Array


Recipes = Callable[[dict[str, Any]], step.Recipe]
Init = Callable[[jax.Array], tuple[Any, Any]]
Take = Callable[[Any, Any], Any]
Prepare = Callable[..., Any]


def _fit_of(
    recipe_of: Recipes, init: Init, take: Take
) -> Callable[[Member, Any, Any], tuple[step.Recipe, Any, Any, jax.Array]]:
    """Returns (member, resident, batch) -> (recipe, params, variables, losses).

    The arguments are those of `run_of`; of the batch only shapes are read.
    """

    def fit(member: Member, resident: Any, batch: Any):
        recipe = recipe_of(member.settings)
        key = jax.random.key(member.seed)
        params, variables = init(key)
        fixed = step.Fixed(member.seed, resident, None)

        def advance(state, rows):
            return step.advance(recipe, take, state, rows, fixed)

        key = jax.random.fold_in(key, 1)
        heads = step.fresh_heads(recipe, key, (params, variables, {}), None, batch)
        begin = step.init(recipe, params, variables, {}, heads)
        state, seen = lax.scan(advance, begin, member.rows)
        params = recipe.transform.decode(step.trained(state), state.codec)
        return recipe, params, state.variables, seen["loss"]

    return fit


def run_of(
    recipe_of: Recipes, init: Init, take: Take, plain: Prepare
) -> Callable[[Member, Any, Any], Trained]:
    """Returns (member, resident, held out) -> `Trained`, to be jitted or vmapped.

    Args:
      recipe_of: settings -> what is trained; without a teacher and without rules for
        activations.
      init: PRNG key -> (params, variables).
      take: the feed's.
      plain: (None, raw batch) -> batch, without augmentation: what is held out.

    `resident` is what the feed keeps on the device; `held out` is a raw batch of the
    validation split.
    """
    fit = _fit_of(recipe_of, init, take)

    def run(member: Member, resident: Any, held_out: Any) -> Trained:
        batch = plain(None, held_out)
        recipe, params, variables, losses = fit(member, resident, batch)
        outputs, _ = recipe.network(params, variables, {}, batch["input"])
        correct = metrics.classification(outputs, batch)["correct"]
        nonzero = sum(jnp.count_nonzero(w) for w in jax.tree.leaves(params))
        return Trained(losses, correct.astype(jnp.int32), nonzero.astype(jnp.int32))

    return run


def logits_of(
    recipe_of: Recipes, init: Init, take: Take, plain: Prepare
) -> Callable[[Member, Any, Any], tuple[jax.Array, jax.Array]]:
    """Returns (member, resident, shown) -> (losses `[steps]`, logits).

    The arguments are those of `run_of`. `shown` are stored examples
    `[batches, size, ...]`; the logits, `[batches, size, classes]`, are what the trained
    network says of them, a batch at a time.
    """
    fit = _fit_of(recipe_of, init, take)

    def run(member: Member, resident: Any, shown: Any) -> tuple[jax.Array, jax.Array]:
        first = jax.tree.map(lambda r: r[0], member.rows)
        batch = plain(None, take(resident, first))
        recipe, params, variables, losses = fit(member, resident, batch)

        def said(stored):
            given = plain(None, {"input": stored})["input"]
            return recipe.network(params, variables, {}, given)[0][0]

        return losses, lax.map(said, shown)

    return run
