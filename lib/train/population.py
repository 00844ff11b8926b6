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


def run_of(
    recipe_of: Callable[[dict[str, Any]], step.Recipe],
    init: Callable[[jax.Array], tuple[Any, Any]],
    take: Callable[[Any, Any], Any],
    plain: Callable[..., Any],
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

    def run(member: Member, resident: Any, held_out: Any) -> Trained:
        recipe = recipe_of(member.settings)
        key = jax.random.key(member.seed)
        params, variables = init(key)
        fixed = step.Fixed(member.seed, resident, None)

        def advance(state, rows):
            return step.advance(recipe, take, state, rows, fixed)

        batch = plain(None, held_out)
        key = jax.random.fold_in(key, 1)
        heads = step.fresh_heads(recipe, key, (params, variables, {}), None, batch)
        begin = step.init(recipe, params, variables, {}, heads)
        state, seen = lax.scan(advance, begin, member.rows)
        params = recipe.transform.decode(step.trained(state), state.codec)
        outputs, _ = recipe.network(params, state.variables, {}, batch["input"])
        correct = metrics.classification(outputs, batch)["correct"]
        nonzero = sum(jnp.count_nonzero(w) for w in jax.tree.leaves(params))
        return Trained(
            seen["loss"], correct.astype(jnp.int32), nonzero.astype(jnp.int32)
        )

    return run
