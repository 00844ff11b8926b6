"""AC/DC: phases of sparse and of dense training take turns; the last one is sparse.

Peste et al. 2021 (arXiv 2106.12379). `code`: the weights, 0 where they are removed,
`state`: a mask a leaf (bool, True = keep; all True in a dense phase), `decode`: the
weights where the mask keeps them, else 0.
"""

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors
from lib.transforms import base, masked
from lib.transforms.distributions import DISTRIBUTIONS


def compressed(done: jax.Array | int, *, begin: int, period: int, end: int):
    """Returns whether the step after `done` steps belongs to a sparse phase.

    Dense until `begin`, then phases of `period` steps, sparse ones first; sparse from
    `end` on.
    """
    sparse = (done - begin) // period % 2 == 0
    return (done >= begin) & sparse | (done >= end)


def acdc(
    *,
    sparsity: float | jax.Array,
    distribution: str = "layerwise",
    begin: int,
    period: int,
    end: int,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Trains sparse and dense by turns, and ends sparse (2106.12379, Algorithm 1).

    As a sparse phase begins, the smallest magnitudes are set to 0 and stay 0 throughout
    it; as a dense one begins they start from 0 with the rest. The optimiser's slots
    restart at the weights that come and go; the authors' code sets the momentum of all
    weights to 0 as a dense phase begins.

    Args:
      sparsity: fraction removed in sparse phases, in [0, 1]; may be traced.
      distribution: a key of `DISTRIBUTIONS`.
      begin: steps of dense warm-up before the first sparse phase, at least 0.
      period: steps of a phase, at least 1.
      end: the step from which on training is sparse, at least `begin`.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a number outside its range, a schedule as sparsity, an unknown
        distribution; at `encode`, a pattern that matches nothing.
    """
    spread = errors.lookup(DISTRIBUTIONS, distribution, "distribution of sparsity")
    if callable(sparsity):
        raise errors.UserError("acdc: sparsity stays as it is; got a schedule")
    if not isinstance(sparsity, jax.core.Tracer) and not 0 <= sparsity <= 1:
        raise errors.UserError(
            f"acdc: sparsity is the fraction removed, from 0 to 1, got {sparsity}"
        )
    if period < 1:
        raise errors.UserError(f"acdc: period is at least 1 step, got {period}")
    if not 0 <= begin <= end:
        raise errors.UserError(
            f"acdc: begin and end are steps with 0 <= begin <= end, got {begin}, {end}"
        )

    def largest(weights):
        return spread.masks({p: jnp.abs(w) for p, w in weights.items()}, sparsity)

    def everything(weights):
        return {p: jnp.ones(w.shape, bool) for p, w in weights.items()}

    def encode(weights):
        masks = everything(weights) if begin else largest(weights)
        return masked.decode(weights, masks), masks

    def update(codes, masks, signals):
        was, now = (
            compressed(signals.step + i, begin=begin, period=period, end=end)
            for i in (0, 1)
        )

        def turn(codes):
            return lax.cond(now, largest, everything, codes)

        return lax.cond(was != now, turn, lambda _: masks, codes)

    how = f"acdc(sparsity={sparsity}, {distribution})"
    return base.on_leaves(
        how, pattern, encode, masked.decode, masked.freeze, update, renew=masked.renew
    )
