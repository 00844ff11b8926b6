"""Which weights share a scale: those of a tensor, an output channel or a group."""

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors

GRANULARITIES = ("tensor", "channel", "group")


def check(granularity: str, group: int, where: str) -> None:
    """Raises a `UserError` for a granularity that there is not.

    Args:
      granularity: one scale a "tensor", one an output "channel" (the last axis), or
        one a "group" of `group` neighbours along the contraction axis (all axes but
        the last, flattened) of each channel.
      group: length of a group; 0 unless granularity is "group".
      where: the technique, for the message.
    """
    if granularity not in GRANULARITIES:
        raise errors.UserError(
            f"{where}: unknown granularity {granularity!r}; "
            f"{errors.hint(granularity, GRANULARITIES)}"
        )
    if (group > 0) != (granularity == "group"):
        raise errors.UserError(
            f"{where}: a group length goes with granularity 'group', got "
            f"group={group} and granularity={granularity!r}"
        )


def check_leaf(path: str, w: jax.Array, group: int, where: str) -> None:
    """Raises a `UserError` for a leaf that groups do not divide, or a float16 one."""
    contraction = int(np.prod(w.shape[:-1]))
    if group and contraction % group:
        raise errors.UserError(
            f"{where}: groups of {group} do not divide the {contraction} "
            f"inputs of {path} with shape {tuple(w.shape)}"
        )
    if w.dtype == jnp.float16:  # whose smallest scales underflow to zero
        raise errors.UserError(
            f"{where}: {path} is float16; expected float32 or bfloat16"
        )


def seen(
    w: jax.Array, granularity: str, group: int
) -> tuple[jax.Array, tuple[int, ...]]:
    """Returns the weights through their view, and its axes that share one scale.

    The view is `[contraction / group, group, out]` of groups, else the weights.
    """
    match granularity:
        case "tensor":
            return w, tuple(range(w.ndim))
        case "channel":
            return w, tuple(range(w.ndim - 1))
    return w.reshape(-1, group, w.shape[-1]), (1,)
