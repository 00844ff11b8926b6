"""Sparse from the start: weights are dropped and others grown, the count stays exact.

`code`: the weights, 0 where they are removed, `state`: a mask a leaf (bool, True =
keep), `decode`: the weights where the mask keeps them, else 0. SET grows at random
(Mocanu et al. 2018, arXiv 1707.04780); `rigl` (rigl.py) where the gradient is large.
"""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, schedules
from lib.transforms import base, masked, selection
from lib.transforms.distributions import erk, layerwise

# How many weights go of each leaf. Not of all leaves together: whether a weight that
# does not exist yet belongs to one leaf or another, no magnitude says.
SPREADS = {"erk": erk, "layerwise": layerwise}


def _key(key: jax.Array, path: str) -> jax.Array:
    """Returns a leaf's own key, whatever other leaves there are."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


def random_masks(weights: base.Leaves, counts: list, seed: int) -> base.Leaves:
    """Returns masks that drop `counts` weights of each leaf, drawn from the seed."""
    key = jax.random.key(seed)
    return {
        p: selection.keep_all_but([jax.random.uniform(_key(key, p), w.shape)], n)[0]
        for (p, w), n in zip(weights.items(), counts, strict=True)
    }


def exchange(
    mask: jax.Array, weight: jax.Array, score: jax.Array, share: jax.Array
) -> jax.Array:
    """Drops a share of the kept weights and grows as many (1911.11134, Algorithm 1).

    Args:
      mask: bool, True = keep.
      weight: of the mask's shape; the smallest magnitudes among the kept are dropped.
      score: of the mask's shape, at least 0; the highest of those not kept any more
        grow. What was just dropped may win its place back, as in the paper.
      share: float32 scalar in [0, 1]; `round(share * kept)` are exchanged.

    Returns:
      a mask that keeps exactly as many.
    """
    kept = selection.count(mask)
    moved = jnp.rint(share * kept.astype(jnp.float32)).astype(jnp.int32)
    out = jnp.float32(-1)  # below every magnitude
    magnitude = jnp.where(mask, jnp.abs(weight).astype(jnp.float32), out)
    (survives,) = selection.keep_all_but([magnitude], mask.size - (kept - moved))
    score = jnp.where(survives, out, score.astype(jnp.float32))
    (grown,) = selection.keep_all_but([score], mask.size - moved)
    return survives | grown


def evolving(
    name: str,
    score: Callable[[jax.Array, jax.Array], jax.Array],
    share: Callable[[jax.Array], jax.Array],
    *,
    sparsity: float | jax.Array,
    distribution: str,
    fraction: float | jax.Array,
    every: int,
    end: int,
    seed: int,
    pattern: str,
) -> base.Transform:
    """Returns the technique that grows where `score` is high; see `set_` and `rigl`.

    Args:
      name: the technique's, for messages and `plan`.
      score: (dense gradient, key) -> scores, at least 0, of the gradient's shape.
      share: step -> share of the kept weights to exchange.
      sparsity: see `set_`, as for the rest.
      distribution: a key of `SPREADS`.
      fraction: what `share` begins with; only judged here.
      every: steps between exchanges.
      end: the step from which on there are none.
      seed: of the first masks.
      pattern: regular expression over paths.
    """
    spread = errors.lookup(SPREADS, distribution, f"distribution of {name}")
    if callable(sparsity):
        raise errors.UserError(f"{name}: sparsity stays as it is; got a schedule")
    for key, value in (("sparsity", sparsity), ("fraction", fraction)):
        if not isinstance(value, jax.core.Tracer) and not 0 <= value <= 1:
            raise errors.UserError(f"{name}: {key} is from 0 to 1, got {value}")
    for key, value, least in (("every", every, 1), ("end", end, 0)):
        if value < least:
            raise errors.UserError(
                f"{name}: {key} is {least} or more steps, got {value}"
            )

    def encode(weights):
        counts = spread(sparsity, [tuple(np.shape(w)) for w in weights.values()])
        masks = random_masks(weights, counts, seed)
        return masked.decode(weights, masks), masks

    def update(codes, masks, signals):
        def follow(masks):
            moved = share(signals.step)
            return {
                p: exchange(
                    m, codes[p], score(signals.grads[p], _key(signals.key, p)), moved
                )
                for p, m in masks.items()
            }

        due = (signals.step % every == 0) & (signals.step < end)
        return lax.cond(due, follow, lambda m: m, masks)

    how = f"{name}(sparsity={sparsity}, {distribution})"
    return base.on_leaves(
        how, pattern, encode, masked.decode, masked.freeze, update, renew=masked.renew
    )


def set_(
    *,
    sparsity: float | jax.Array,
    distribution: str = "erk",
    fraction: float | jax.Array = 0.3,
    every: int = 100,
    end: int,
    seed: int,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Sparse evolutionary training, "set": drops small weights, grows random ones.

    Mocanu et al. 2018 (arXiv 1707.04780), as Evci et al. 2020 (1911.11134, section 3)
    compare with it: the smallest magnitudes go, whatever their sign, and what grows
    starts at 0. The first masks are random, at the exact counts of the distribution.
    Unlike in the paper, the step at which weights are exchanged trains as well.

    Args:
      sparsity: fraction removed, in [0, 1], at every step; may be traced.
      distribution: a key of `SPREADS`.
      fraction: of the kept weights, exchanged each time, in [0, 1]; may be traced.
      every: steps between exchanges, at least 1.
      end: the step from which on the masks stay as they are.
      seed: of the first masks; a leaf's depends on its path and nothing else.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a number outside its range, a schedule as sparsity, an unknown
        distribution; at `encode`, a pattern that matches nothing.
    """
    return evolving(
        "set",
        lambda gradient, key: jax.random.uniform(key, gradient.shape),
        schedules.constant(value=fraction),
        sparsity=sparsity,
        distribution=distribution,
        fraction=fraction,
        every=every,
        end=end,
        seed=seed,
        pattern=pattern,
    )
