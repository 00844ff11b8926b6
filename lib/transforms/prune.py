"""Pruning by masks: the weights of lowest score are set to zero.

`code`: the weights, `decode`: the weights where the mask keeps them, else 0. Removed
weights get no gradient, keep their last value and may come back while a schedule still
moves. `state` a leaf: the mask (bool, True = keep), or a dict of it and of what else is
carried along: the statistic that scores follow, the weights to rewind to.

What is ranked stands in scores.py, what goes together in shapes.py, how many go from
where in distributions.py.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, schedules
from lib.transforms import base, masked, ranking, shapes
from lib.transforms.distributions import DISTRIBUTIONS
from lib.transforms.scores import SCORES


def _state(mask: jax.Array, statistic: Any, start: jax.Array | None) -> Any:
    """Returns a leaf's state: the mask alone where nothing else is carried along."""
    extra = {}
    if jax.tree.leaves(statistic):
        extra["statistic"] = statistic
    if start is not None:
        extra["start"] = start
    return {"mask": mask, **extra} if extra else mask


def _kept(states: base.Leaves) -> base.Leaves:
    return {p: s["mask"] if isinstance(s, Mapping) else s for p, s in states.items()}


def _carried(states: base.Leaves, name: str) -> base.Leaves:
    """Returns {path: what is carried along by that name}, () where nothing is."""
    return {
        p: s.get(name, ()) if isinstance(s, Mapping) else () for p, s in states.items()
    }


def _decode(codes: base.Leaves, states: base.Leaves) -> base.Leaves:
    return masked.decode(codes, _kept(states))


def _freeze(leaves: base.Leaves, states: base.Leaves) -> base.Leaves:
    return masked.freeze(leaves, _kept(states))


def _check_given(scores: Mapping[str, Any], weights: base.Leaves) -> None:
    for path, w in weights.items():
        found = errors.lookup(scores, path, "path of given scores")
        if np.shape(found) != w.shape:
            raise errors.UserError(
                f"prune: scores of {path} have shape {tuple(np.shape(found))}, "
                f"its weight has {tuple(w.shape)}"
            )


def _rewound(
    codes: base.Leaves, before: base.Leaves, after: base.Leaves
) -> tuple[base.Leaves, base.Fresh]:
    """Sets all leaves back to their start if a mask of any of them has moved."""
    old, new, start = _kept(before), _kept(after), _carried(after, "start")
    moved = jnp.any(jnp.stack([jnp.any(old[p] != new[p]) for p in codes]))
    codes = {p: jnp.where(moved, start[p], w) for p, w in codes.items()}
    return codes, {p: jnp.broadcast_to(moved, w.shape) for p, w in codes.items()}


def prune(
    *,
    sparsity: schedules.Strength | None = None,
    distribution: str = "layerwise",
    score: str = "magnitude",
    shape: str = "unstructured",
    scores: Mapping[str, Any] | None = None,
    decay: float = 0.9,
    seed: int = 0,
    every: int = 1,
    rewind: bool = False,
    rewind_step: int = 0,
    keep: bool = False,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Sets the weights of lowest score to zero (magnitudes: Han 2015, 1506.02626).

    Exactly `round(sparsity * size)` weights (or units of a `shape`) go: of each leaf
    (`layerwise`), of each output (`output`), of all leaves ranked together (`global`,
    `lamp`), or spread by shape (`erk`, rounded leaf by leaf). Of equal scores those
    that stand first are kept, leaves by their path.

    Under a schedule, in a chain, the weights are those of its own code: after
    `chain(quantize, prune)` the latent weights, after `chain(prune, quantize)` the
    rounded ones, whose magnitudes tie often when bits are few. Gradients are those of
    the step just taken, weights those after it.

    Args:
      sparsity: fraction removed, in [0, 1]. A number prunes at once, in `encode`, and
        sets what it removes to 0 in the code; a schedule starts dense and is followed
        by `update`, which leaves the masks alone once it has stopped moving. May be
        traced. Of shape "N:M" it is 1 - N/M, also if None; under a schedule groups
        lose one weight after the other (Kao et al. 2022, 2209.07617).
      distribution: a key of `DISTRIBUTIONS`.
      score: a key of `SCORES`. Those that follow the gradients (taylor, movement,
        fisher) need a schedule; "given" takes `scores`.
      shape: "unstructured", "N:M" as "2:4", blocks "AxB" of inputs and outputs as
        "4x1", or "channel": whole outputs. See `shapes.parse`.
      scores: {path: array of the weight's shape, higher = keep}, computed beforehand;
        goes with score "given".
      decay: of the moving averages of taylor and fisher, in [0, 1).
      seed: of the random order.
      every: steps between mask updates under a schedule.
      rewind: whenever the masks move, the weights start over from those that `encode`
        saw, and what was removed stays so: the lottery ticket (Frankle & Carbin 2019,
        1803.03635), with `schedules.staircase`. Leaves that the pattern leaves out,
        such as biases, train on. Needs a schedule.
      rewind_step: start over from the weights after so many steps instead (2019,
        1912.05671); the masks should not move before. If `quantize` follows in the
        chain, these are the rounded ones.
      keep: take the zeros the weights come with as the mask, and never change it;
        goes without a sparsity.
      pattern: regular expression over paths of the leaves to prune.

    Raises:
      UserError: a sparsity outside [0, 1] or not that of "N:M", none without `keep` or
        one with it, an unknown distribution, score or shape, or two that do not go
        together, `scores` without score "given" or the reverse, a number out of range;
        at `encode`, a pattern that matches nothing, a leaf that groups or blocks do not
        divide, given scores that are missing or of another shape, a rewind or a score
        that follows the gradients without a schedule.
    """
    spread = errors.lookup(DISTRIBUTIONS, distribution, "distribution of sparsity")
    kind = errors.lookup(SCORES, score, "score")
    cut = shapes.parse(shape)
    scheduled = callable(sparsity)
    if every < 1:
        raise errors.UserError(f"prune: every is at least 1 step, got {every}")
    if not 0 <= decay < 1:
        raise errors.UserError(f"prune: decay is in [0, 1), got {decay}")
    if rewind_step < 0 or (rewind_step and not rewind):
        raise errors.UserError(
            "prune: rewind_step is a number of steps from 0 that goes with "
            f"rewind=True, got {rewind_step} and {rewind}"
        )
    if (score == "given") != (scores is not None):
        raise errors.UserError(
            "prune: scores={path: array} goes with score='given', got "
            f"{'scores' if scores is not None else 'no scores'} and score={score!r}"
        )
    if distribution not in cut.goes_with:
        raise errors.UserError(
            f"prune: shape {shape!r} goes with distribution "
            f"{', '.join(cut.goes_with)}; got {distribution!r}"
        )
    if distribution == "lamp" and score != "magnitude":
        raise errors.UserError(
            f"prune: lamp ranks squared weights: score is 'magnitude', got {score!r}"
        )
    if sparsity is None and cut.spread and not keep:
        sparsity = cut.most
    if (sparsity is None) != keep:
        raise errors.UserError(
            f"prune: give either a sparsity or keep=True, got {sparsity} and {keep}"
        )
    known = not (keep or scheduled or isinstance(sparsity, jax.core.Tracer))
    if known and not 0 <= sparsity <= 1:
        raise errors.UserError(
            f"prune: sparsity is the fraction removed, from 0 to 1, got {sparsity}"
        )
    # 0 is where a schedule begins.
    if known and cut.spread and sparsity and not np.isclose(sparsity, cut.most):
        raise errors.UserError(
            f"prune: shape {shape!r} removes {cut.most:.4g}; got sparsity {sparsity}"
        )
    rank = ranking.Ranking(kind, cut, cut.spread or spread, seed, for_good=rewind)

    def encode(weights):
        for path, w in weights.items():
            cut.check(path, tuple(w.shape))
        if (rewind or kind.update) and not scheduled:
            what = "rewind" if rewind else f"score {score!r}"
            raise errors.UserError(
                f"prune: {what} follows training: give sparsity a schedule instead "
                "of a number"
            )
        if score == "given":
            _check_given(scores, weights)
            statistics = {p: jnp.asarray(scores[p], jnp.float32) for p in weights}
        else:
            statistics = {p: kind.start(w) for p, w in weights.items()}
        if keep:
            masks = {p: w != 0 for p, w in weights.items()}
        else:
            masks = {p: jnp.ones(w.shape, bool) for p, w in weights.items()}
        if scheduled:
            # A copy: a buffer is donated only once.
            start = {p: jnp.copy(w) if rewind else None for p, w in weights.items()}
            return weights, {
                p: _state(masks[p], statistics[p], start[p]) for p in masks
            }
        if not keep:
            counts = rank.counts(weights, sparsity)
            masks = rank.masks(weights, statistics, masks, counts)
        return masked.decode(weights, masks), masks

    def follow(codes, masks, statistics, step):
        """Returns the masks of a step, which move only as the schedule does."""
        counts, gone = rank.counts(codes, sparsity(step)), rank.gone(masks)
        if len(counts) != len(gone):
            gone = [sum(gone)]
        return lax.cond(
            jnp.any(jnp.stack(counts) != jnp.stack(gone)),
            lambda masks: rank.masks(codes, statistics, masks, counts),
            lambda masks: masks,
            masks,
        )

    def update(codes, states, signals):
        step = signals.step
        statistics, start = _carried(states, "statistic"), _carried(states, "start")
        if kind.update:
            statistics = {
                p: kind.update(statistics[p], w, signals.grads[p], decay)
                for p, w in codes.items()
            }
        if rewind_step:
            now = step + 1 == rewind_step
            start = {p: jnp.where(now, w, start[p]) for p, w in codes.items()}
        masks = lax.cond(
            step % every == 0,
            lambda masks: follow(codes, masks, statistics, step),
            lambda masks: masks,
            _kept(states),
        )
        return {
            p: _state(m, statistics[p], start[p] if rewind else None)
            for p, m in masks.items()
        }

    settings = ["schedule" if scheduled else f"sparsity={sparsity}", distribution]
    settings += [score] * (score != "magnitude") + [shape] * (shape != "unstructured")
    how = f"prune({', '.join(settings)})"
    if keep:
        how = "prune(keep)"
    moving = update if scheduled and not keep else None
    return base.on_leaves(
        how,
        pattern,
        encode,
        _decode,
        _freeze,
        moving,
        renew=_rewound if rewind and scheduled else None,
    )


def keep(*, pattern: str = base.KERNELS) -> base.Transform:
    """Returns `prune(keep=True)`: the zeros the weights come with stay zeros."""
    return prune(keep=True, pattern=pattern)
