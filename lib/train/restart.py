"""Restarts the optimiser where a technique has set weights anew.

A weight that grows back at zero must not be moved by the momentum it had before it was
removed (Evci et al. 2020, arXiv 1911.11134, section 3). Which arrays of the optimiser's
state belong to which weight is found by their place and shape, so that any optax
transformation will do: under `MultiSteps`, `inject_hyperparams`, `masked` or a chain.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lib import tree
from lib.transforms import base


def leaves(old: Any, new: Any, fresh: base.Fresh) -> Any:
    """Returns the tree `old` with `new`'s values where `fresh` is True.

    Args:
      old: nested dict of arrays.
      new: of the same structure.
      fresh: {path: bool of the leaf's shape, True = take the new value}.
    """
    changed = {
        p: jnp.where(m, tree.get(new, p), tree.get(old, p)) for p, m in fresh.items()
    }
    return tree.replace(old, changed)


def slots(
    optimizer: optax.GradientTransformation, state: Any, code: Any, fresh: base.Fresh
) -> Any:
    """Returns the optimiser's state with the slots of renewed weights as at the start.

    A slot is an array of the state at a weight's path (the names of the dicts that its
    place ends in) which has that weight's shape: moments, traces, accumulated
    gradients. Counters, and slots that are shared by many weights (Adafactor's rows and
    columns), stay as they are: so does the number of steps by which Adam corrects its
    bias, and a weight's first step after it begins anew is longer than the very first.

    Args:
      optimizer: whose state it is.
      state: after the step.
      code: what the optimiser trains, after it was renewed.
      fresh: {path in code: bool of the leaf's shape, True = begins anew}.
    """
    if not fresh:
        return state
    begun = optimizer.init(code)

    def one(place: tuple[Any, ...], old: Any, new: Any) -> Any:
        anew = fresh.get(_path(place))
        if anew is None or old.shape != anew.shape:
            return old
        return jnp.where(anew, new, old)

    return jax.tree_util.tree_map_with_path(one, state, begun)


def _path(place: tuple[Any, ...]) -> str:
    """Returns the names of the dicts that a leaf's place ends in, as `a/kernel`."""
    keys: list[str] = []
    for key in place:
        keys = [*keys, str(key.key)] if isinstance(key, jax.tree_util.DictKey) else []
    return "/".join(keys)
