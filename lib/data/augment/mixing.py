"""Batches whose examples are mixed in pairs: mixup and cutmix.

A mixing is `(key, batch, first) -> batch` of a prepared batch: inputs float32 [B, ...],
"label" int32 [B], "weight" float32 [B]. It writes `batch["target"]`, float32
[B, classes], what the losses then compare with; "label" stays the label of the example
that was mixed into.

Neighbours are paired: example 2k with 2k + 1. Batches are shuffled, so this is a random
pairing, and as long as each device's part of the batch is even, what happens to an
example depends on its key, `fold_in(key, position)`, and on its pair alone: the same
numbers on any number of devices. The last example of an odd part has no pair and stays
as it is, as does one of a pair in which a weight is 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lib.data.augment import base, erasing

Batch = dict[str, jax.Array]
Mixing = Callable[[jax.Array, Batch, jax.Array | int], Batch]

# (key, [H, W, ...] of one example and of its pair, alpha) -> mixed, share of its own
Blend = Callable[..., tuple[jax.Array, jax.Array]]


def mixup(*, alpha: float, probability: float, classes: int) -> Mixing:
    """Mixes inputs and labels: `r x_i + (1 - r) x_j`, r from Beta(alpha, alpha).

    Zhang et al. 2017, arXiv 1710.09412, equation 1; each example draws its own r.

    Args:
      alpha: 0 mixes nothing; 1 is uniform. May be traced.
      probability: that an example is mixed, in [0, 1]. May be traced.
      classes: labels lie in [0, classes).
    """
    return _paired("mixup", _faded, alpha, probability, classes)


def cutmix(*, alpha: float, probability: float, classes: int) -> Mixing:
    """Pastes a rectangle of one image into another; labels count by their areas.

    Yun et al. 2019, arXiv 1905.04899, equations 1 and 2: r from Beta(alpha, alpha), the
    rectangle's sides are those of the image times sqrt(1 - r), its centre is any pixel,
    what falls outside is lost, and the label's share is that of the pixels kept.

    Args:
      alpha: 0 mixes nothing; 1 is uniform. May be traced.
      probability: that an example is mixed, in [0, 1]. May be traced.
      classes: labels lie in [0, classes).
    """
    return _paired("cutmix", _pasted, alpha, probability, classes)


def _faded(key: jax.Array, mine: jax.Array, other: jax.Array, share: jax.Array):
    del key
    return share * mine + (1 - share) * other, share


def _pasted(key: jax.Array, mine: jax.Array, other: jax.Array, share: jax.Array):
    limits = jnp.array(mine.shape[:2])
    sides = (limits * jnp.sqrt(1 - share)).astype(int)
    centre = jax.random.randint(key, (2,), 0, limits)
    hole = erasing.inside(mine, centre - sides // 2, sides)
    return jnp.where(hole, other, mine), 1 - jnp.mean(hole)


def _paired(
    name: str, blend: Blend, alpha: Any, probability: Any, classes: int
) -> Mixing:
    base.check(f"{name}.alpha", alpha, 0, float("inf"))
    base.check(f"{name}.probability", probability, 0, 1)

    def one(key, mine, other, whole):
        """Returns one example's input and target; `whole`: neither is padding."""
        of_coin, of_share, of_place = jax.random.split(key, 3)
        some = jnp.where(alpha > 0, alpha, 1.0)  # Beta(0, 0) is none
        share = jax.random.beta(of_share, some, some)
        mixed, share = blend(of_place, mine["input"], other["input"], share)
        on = whole & (alpha > 0) & jax.random.bernoulli(of_coin, probability)
        target = share * mine["target"] + (1 - share) * other["target"]
        return (
            jnp.where(on, mixed, mine["input"]),
            jnp.where(on, target, mine["target"]),
        )

    def mix(key: jax.Array, batch: Batch, first: jax.Array | int) -> Batch:
        count = batch["label"].shape[0]
        position = jnp.arange(count)
        pair = jnp.minimum(position ^ 1, count - 1)
        target = batch["target"] if "target" in batch else _one_hot(batch, classes)
        mine = {"input": batch["input"], "target": target}
        other = jax.tree.map(lambda x: jnp.take(x, pair, axis=0), mine)
        real = batch["weight"] > 0
        whole = real & jnp.take(real, pair) & (pair != position)
        keys = base.keys(key, count, first)
        inputs, target = jax.vmap(one)(keys, mine, other, whole)
        return {**batch, "input": inputs, "target": target}

    return mix


def _one_hot(batch: Batch, classes: int) -> jax.Array:
    """Returns [B, classes]; NaN for a label without a class, as its loss would be."""
    label = batch["label"]
    valid = (label >= 0) & (label < classes)
    return jnp.where(valid[:, None], jax.nn.one_hot(label, classes), jnp.nan)
