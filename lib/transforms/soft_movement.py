"""Soft movement pruning: a threshold on learned scores decides how many weights go.

`code`: the weights, `state` a leaf: the mask (bool, True = keep) and the scores,
`decode`: the weights where the mask keeps them, else 0. Unlike under `prune`, the
sparsity is an outcome: of the threshold and of a penalty that pulls all scores down.
"""

import jax
import jax.numpy as jnp

from lib import errors, schedules
from lib.transforms import base, masked


def _masks(states: base.Leaves) -> base.Leaves:
    return {p: s["mask"] for p, s in states.items()}


def soft_movement(
    *,
    threshold: schedules.Strength,
    rate: float | jax.Array,
    strength: float | jax.Array,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Keeps weights with `sigmoid(score) > threshold` (Sanh et al. 2020, 2005.07683).

    Scores start at 0 and everything is kept. After each step
    `S -= rate * (w * dL/dw + strength * dR/dS)`, with R the mean of `sigmoid(S)` over
    all weights (section 4; the paper's strength is per weight), and the masks follow.
    Removed weights get no gradient and keep their last value, but their scores
    move on, so that they may come back.

    Args:
      threshold: in [0, 0.5): above half, all would go at once. A number, a schedule,
        or a traced value.
      rate: learning rate of the scores, at least 0.
      strength: of the penalty, at least 0: the higher, the sparser.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a number outside its range; at `encode`, a pattern that matches
        nothing.
    """
    known = not (callable(threshold) or isinstance(threshold, jax.core.Tracer))
    if known and not 0 <= threshold < 0.5:
        raise errors.UserError(
            f"soft_movement: threshold is in [0, 0.5), got {threshold}"
        )
    for name, value in (("rate", rate), ("strength", strength)):
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise errors.UserError(f"soft_movement: {name} is at least 0, got {value}")

    def encode(weights):
        return weights, {
            p: {"mask": jnp.ones(w.shape, bool), "score": jnp.zeros(w.shape)}
            for p, w in weights.items()
        }

    def moved(w, g, score, size):
        w, g = w.astype(jnp.float32), g.astype(jnp.float32)
        share = jax.nn.sigmoid(score)
        pull = strength / size * share * (1 - share)
        return score - rate * (w * g + pull)

    def update(codes, states, signals):
        least, new = schedules.at(threshold, signals.step), {}
        size = sum(w.size for w in codes.values())
        for p, w in codes.items():
            score = moved(w, signals.grads[p], states[p]["score"], size)
            new[p] = {"mask": jax.nn.sigmoid(score) > least, "score": score}
        return new

    how = f"soft_movement({'schedule' if callable(threshold) else threshold})"
    return base.on_leaves(
        how,
        pattern,
        encode,
        lambda codes, states: masked.decode(codes, _masks(states)),
        lambda leaves, states: masked.freeze(leaves, _masks(states)),
        update,
    )
