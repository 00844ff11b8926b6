"""Pruning by masks: the weights of smallest magnitude are set to zero.

`code`: the weights, `state`: a mask a leaf (bool, True = keep), `decode`: the weights
where the mask keeps them, else 0. Removed weights get no gradient, keep their last
value and may come back while a schedule still moves.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, representations, schedules
from lib.transforms import base, selection

# Counts of leaves below this size are float32 arithmetic whether or not the sparsity
# is traced, so that a swept run and a single run remove the same number.
_EXACT = 2**24


def _count(sparsity, size: int):
    """Returns round(sparsity * size), half to even: an int, or int32 if traced."""
    if isinstance(sparsity, jax.Array):
        return jnp.rint(sparsity.astype(jnp.float32) * size).astype(jnp.int32)
    if size < _EXACT:
        return int(np.rint(np.float32(sparsity) * np.float32(size)))
    return round(float(sparsity) * size)


def layerwise(sparsity, shapes: list[tuple[int, ...]]) -> list:
    """Returns the same fraction of each leaf: [round(sparsity * size)]."""
    return [_count(sparsity, int(np.prod(shape))) for shape in shapes]


def erk(sparsity, shapes: list[tuple[int, ...]]) -> list:
    """Returns Erdos-Renyi-Kernel counts: the smaller a leaf, the denser it stays.

    Density of a leaf ~ epsilon * sum(shape) / prod(shape), with epsilon such that the
    whole keeps `1 - sparsity`; leaves that would pass 1 stay dense (Evci et al. 2020,
    arXiv 1911.11134, section 3.1).

    Args:
      sparsity: fraction removed over all leaves together, in [0, 1]; may be traced.
      shapes: the leaves' shapes.

    Returns:
      the number of weights to remove from each leaf.
    """
    size, raw = (
        np.asarray([f(s) for s in shapes], np.int64) for f in (np.prod, np.sum)
    )
    # Leaves fill up in a fixed order as more is kept, so which ones are dense is a
    # matter of limits known beforehand. Entry j: with the j first leaves dense,
    first = np.argsort(-raw / size, kind="stable")
    full = np.r_[0, np.cumsum(size[first])]  # the weights in them,
    rest = raw.sum() - np.r_[0, np.cumsum(raw[first])]  # kept / epsilon of the others,
    limit = full[:-1] - (-rest[:-1] * size[first] // raw[first])  # where one more fills
    kept = size.sum() - _count(sparsity, int(size.sum()))
    dense = jnp.sum(kept >= jnp.asarray(limit, jnp.int32))
    # Products alone round the same whether or not they are compiled or mapped.
    free = (kept - jnp.asarray(full, jnp.int32)[dense]).astype(jnp.float32)
    epsilon = free * jnp.asarray(1 / np.maximum(rest, 1), jnp.float32)[dense]
    size, raw = jnp.asarray(size, jnp.int32), jnp.asarray(raw, jnp.float32)
    share = jnp.clip(jnp.rint(epsilon * raw).astype(jnp.int32), 0, size)
    return list(size - jnp.where(np.argsort(first) < dense, size, share))


def whole(sparsity, shapes: list[tuple[int, ...]]) -> list:
    """Returns one count for all leaves ranked together: [round(sparsity * total)]."""
    return [_count(sparsity, sum(int(np.prod(shape)) for shape in shapes))]


# name -> how many of the weights go: one count a leaf, or one for all of them.
DISTRIBUTIONS = {"layerwise": layerwise, "erk": erk, "global": whole}


def _masks(weights: base.Leaves, counts: list) -> base.Leaves:
    """Returns the masks that drop the `counts` smallest magnitudes."""
    if len(counts) == len(weights):
        return {
            p: selection.keep_all_but([jnp.abs(w)], count)[0]
            for (p, w), count in zip(weights.items(), counts, strict=True)
        }
    # In a fixed order: jit sorts the keys of dicts, and ties go by place.
    paths = sorted(weights)
    kept = selection.keep_all_but([jnp.abs(weights[p]) for p in paths], counts[0])
    return dict(zip(paths, kept, strict=True))


def prune(
    *,
    sparsity: schedules.Strength | None = None,
    distribution: str = "layerwise",
    every: int = 1,
    keep: bool = False,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Sets the weights of smallest magnitude to zero (Han et al. 2015, 1506.02626).

    Exactly `round(sparsity * size)` weights go: of each leaf (`layerwise`), of all
    leaves ranked together (`global`), or spread by shape (`erk`, rounded leaf by leaf).
    Of equal magnitudes those that stand first are kept, leaves by their path.

    Under a schedule, in a chain, the magnitudes are those of its own code: after
    `chain(quantize, prune)` the latent weights, after `chain(prune, quantize)` the
    rounded ones, which tie often when bits are few.

    Args:
      sparsity: fraction removed, in [0, 1]. A number prunes at once, in `encode`; a
        schedule starts dense and is followed by `update`, which leaves the masks
        alone once it has stopped moving. May be traced.
      distribution: a key of `DISTRIBUTIONS`.
      every: steps between mask updates under a schedule.
      keep: take the zeros the weights come with as the mask, and never change it;
        goes without a sparsity.
      pattern: regular expression over paths of the leaves to prune.

    Raises:
      UserError: a sparsity outside [0, 1], none without `keep` or one with it, an
        unknown distribution, `every` below 1; at `encode`, a pattern that matches
        nothing.
    """
    spread = errors.lookup(DISTRIBUTIONS, distribution, "distribution of sparsity")
    scheduled = callable(sparsity)
    if every < 1:
        raise errors.UserError(f"prune: every is at least 1 step, got {every}")
    if (sparsity is None) != keep:
        raise errors.UserError(
            f"prune: give either a sparsity or keep=True, got {sparsity} and {keep}"
        )
    known = not (keep or scheduled or isinstance(sparsity, jax.core.Tracer))
    if known and not 0 <= sparsity <= 1:
        raise errors.UserError(
            f"prune: sparsity is the fraction removed, from 0 to 1, got {sparsity}"
        )

    def encode(weights):
        if keep:
            masks = {p: w != 0 for p, w in weights.items()}
        elif scheduled:
            masks = {p: jnp.ones(w.shape, bool) for p, w in weights.items()}
        else:
            shapes = [w.shape for w in weights.values()]
            masks = _masks(weights, spread(sparsity, shapes))
        return weights, masks

    def decode(codes, masks):
        # A select, not a product: -w * 0 would leave a negative zero.
        return {
            p: jnp.where(masks[p], w, jnp.zeros((), w.dtype)) for p, w in codes.items()
        }

    def update(codes, masks, signals):
        shapes = [w.shape for w in codes.values()]

        def follow(masks):
            counts = spread(sparsity(signals.step), shapes)
            removed = [selection.count(~m) for m in masks.values()]
            if len(counts) != len(removed):
                removed = [sum(removed)]
            moved = jnp.any(jnp.stack(counts) != jnp.stack(removed))
            return lax.cond(moved, lambda m: _masks(codes, counts), lambda m: m, masks)

        return lax.cond(signals.step % every == 0, follow, lambda m: m, masks)

    def freeze(leaves, masks):
        return {p: representations.sparse(masks[p], x) for p, x in leaves.items()}

    if keep:
        how = "prune(keep)"
    elif scheduled:
        how = f"prune(schedule, {distribution})"
    else:
        how = f"prune(sparsity={sparsity}, {distribution})"
    moving = update if scheduled and not keep else None
    return base.on_leaves(how, pattern, encode, decode, freeze, moving)


def keep(*, pattern: str = base.KERNELS) -> base.Transform:
    """Returns `prune(keep=True)`: the zeros the weights come with stay zeros."""
    return prune(keep=True, pattern=pattern)
