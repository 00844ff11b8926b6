"""RigL: sparse from the start, weights grow where the dense gradient is largest.

Evci et al. 2020, "Rigging the Lottery" (arXiv 1911.11134). Code, state and `decode` are
those of sparse_evolution.py.
"""

import jax
import jax.numpy as jnp

from lib import schedules
from lib.transforms import base, sparse_evolution


def rigl(
    *,
    sparsity: float | jax.Array,
    distribution: str = "erk",
    fraction: float | jax.Array = 0.3,
    every: int = 100,
    end: int,
    seed: int,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Drops the smallest weights and grows where the gradient is largest (1911.11134).

    Every `every` steps a share `f(t) = fraction / 2 * (1 + cos(pi * t / end))` of each
    leaf's kept weights is exchanged (section 3, Algorithm 1): the smallest |w| go; of
    all that are then not kept, those of the largest |dense gradient| come, at 0, with
    fresh slots of the optimiser. A weight that is dropped and wins its place back at
    once keeps its value, as in the authors' code. Sparsity is exact at every step.
    Unlike in the paper, the step at which weights are exchanged trains as well.

    Args:
      sparsity: fraction removed, in [0, 1], at every step; may be traced.
      distribution: a key of `sparse_evolution.SPREADS`.
      fraction: of the kept weights, exchanged at first, in [0, 1]; may be traced.
      every: steps between exchanges, at least 1.
      end: the step from which on the masks stay as they are; the paper ends at 75 % of
        training.
      seed: of the first masks; a leaf's depends on its path and nothing else.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a number outside its range, a schedule as sparsity, an unknown
        distribution; at `encode`, a pattern that matches nothing.
    """
    return sparse_evolution.evolving(
        "rigl",
        lambda gradient, key: jnp.abs(gradient),
        schedules.cosine(initial=fraction, final=0.0, begin=0, end=max(end, 0)),
        sparsity=sparsity,
        distribution=distribution,
        fraction=fraction,
        every=every,
        end=end,
        seed=seed,
        pattern=pattern,
    )
