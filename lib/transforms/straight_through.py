"""Masks that the gradient passes: sparse in the forward pass, dense for the optimiser.

`code`: all weights, `state`: a mask a leaf (bool, True = keep), `decode`: the weights
where the mask keeps them, else 0, with the derivative of the weights themselves
(Bengio et al. 2013, arXiv 1308.3432). The masks follow the magnitudes of the code.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, schedules
from lib.transforms import base, masked, selection
from lib.transforms.distributions import DISTRIBUTIONS


def _decode(codes: base.Leaves, masks: base.Leaves) -> base.Leaves:
    sparse = masked.decode(codes, masks)
    return {p: numerics.straight_through(w, sparse[p]) for p, w in codes.items()}


def ste(
    *,
    sparsity: schedules.Strength,
    distribution: str = "layerwise",
    every: int = 1,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Trains all weights through the largest magnitudes (straight-through top-k).

    Unlike under `prune`, removed weights go on learning and come back as soon as they
    are large enough. With `every` 1 each step sees the largest of the weights it
    starts from, as jaxpruner's magnitude-STE does (Lee et al. 2023, 2304.14082).

    Args:
      sparsity: fraction removed, in [0, 1]: a number, a schedule, or a traced value.
      distribution: a key of `DISTRIBUTIONS`.
      every: steps between mask updates, at least 1.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a sparsity outside [0, 1], an unknown distribution, `every` below 1;
        at `encode`, a pattern that matches nothing.
    """
    spread = errors.lookup(DISTRIBUTIONS, distribution, "distribution of sparsity")
    known = not (callable(sparsity) or isinstance(sparsity, jax.core.Tracer))
    if known and not 0 <= sparsity <= 1:
        raise errors.UserError(
            f"ste: sparsity is the fraction removed, from 0 to 1, got {sparsity}"
        )
    if every < 1:
        raise errors.UserError(f"ste: every is at least 1 step, got {every}")

    def largest(weights, step):
        magnitudes = {p: jnp.abs(w) for p, w in weights.items()}
        return spread.masks(magnitudes, schedules.at(sparsity, step))

    def encode(weights):
        return weights, largest(weights, 0)

    def update(codes, masks, signals):
        return lax.cond(
            signals.step % every == 0,
            lambda _: largest(codes, signals.step),
            lambda masks: masks,
            masks,
        )

    strength = "schedule" if callable(sparsity) else f"sparsity={sparsity}"
    how = f"ste({strength}, {distribution})"
    return base.on_leaves(how, pattern, encode, _decode, masked.freeze, update)


def sr_ste(
    *,
    n: int,
    m: int,
    decay: float | jax.Array = 2e-4,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Trains N:M sparsity from scratch: n weights of every m neighbours are kept.

    Zhou et al. 2021 (arXiv 2102.04010), eq. 8: the gradient passes the mask straight
    through, and removed weights decay: `g + decay * (1 - mask) * w`, which keeps the
    masks from flickering. The term is the gradient of a penalty, so it passes through
    the optimiser as the loss does. The mask follows every step. `decay` 0 is the plain
    straight-through N:M of section 4.1.

    Args:
      n: weights kept of a group, 1 to m; the others are removed.
      m: length of a group along the flattened contraction axis of each output.
      decay: lambda_w of the paper, at least 0; may be traced.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: n or decay outside its range; at `encode`, a pattern that matches
        nothing, or a leaf whose inputs groups of m do not divide.
    """
    if not 1 <= n <= m:
        raise errors.UserError(
            f"sr_ste: n of every m weights are kept, 1 <= n <= m, got n={n}, m={m}"
        )
    if not isinstance(decay, jax.core.Tracer) and not decay >= 0:
        raise errors.UserError(f"sr_ste: decay is at least 0, got {decay}")

    def largest(weights):
        return {
            p: selection.keep_in_groups(jnp.abs(w), m - n, m)
            for p, w in weights.items()
        }

    def encode(weights):
        for path, w in weights.items():
            inputs = int(np.prod(w.shape[:-1]))
            if inputs % m:
                raise errors.UserError(
                    f"sr_ste: groups of {m} do not divide the {inputs} inputs of "
                    f"{path} with shape {tuple(w.shape)}"
                )
        return weights, largest(weights)

    def update(codes, masks, signals):
        del masks, signals
        return largest(codes)

    def penalty(codes, masks):
        removed = (
            jnp.where(masks[p], jnp.zeros((), w.dtype), w).astype(jnp.float32)
            for p, w in codes.items()
        )
        return decay / 2 * sum(jnp.sum(w**2) for w in removed)

    how = f"sr_ste({n} of {m}, decay={decay})"
    return base.on_leaves(
        how, pattern, encode, _decode, masked.freeze, update, penalty=penalty
    )
