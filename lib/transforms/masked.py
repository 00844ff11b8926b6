"""What techniques share whose state is a mask a leaf (bool, True = keep).

The zeros are selects, not products: `-w * 0` would leave a negative zero, and
`nan * 0` is nan.
"""

import jax.numpy as jnp

from lib import representations
from lib.transforms import base


def decode(codes: base.Leaves, masks: base.Leaves) -> base.Leaves:
    """Returns the weights where the masks keep them, else 0."""
    return {p: jnp.where(masks[p], w, jnp.zeros((), w.dtype)) for p, w in codes.items()}


def freeze(leaves: base.Leaves, masks: base.Leaves) -> base.Leaves:
    """Returns `decode` over representations."""
    return {p: representations.sparse(masks[p], x) for p, x in leaves.items()}


def renew(
    codes: base.Leaves, before: base.Leaves, after: base.Leaves
) -> tuple[base.Leaves, base.Fresh]:
    """Sets weights that were dropped or grown to 0; they begin anew.

    So removed weights are 0 in what is trained, too, and stay 0: neither momentum
    moves them, nor does a later technique see values that nothing uses.
    """
    fresh = {p: before[p] != after[p] for p in codes}
    return {
        p: jnp.where(fresh[p], jnp.zeros((), w.dtype), w) for p, w in codes.items()
    }, fresh
