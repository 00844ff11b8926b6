"""Changes of weights that shall not change what the program computes, and the proof."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree


class Change(NamedTuple):
    """What became of one place in a program.

    Attributes:
      name: a contraction's name, or the scope of a norm.
      paths: of the leaves that were changed; () if it was left as it is.
      why: why it was left; empty if it was not.
    """

    name: str
    paths: tuple[str, ...]
    why: str


def error(f: Callable[..., Any], before: Any, after: Any, args: tuple) -> float:
    """Returns the greatest change of f's result, as a share of its greatest element.

    NaN counts as infinity.
    """
    run = jax.jit(f)
    old, new = (jax.tree.leaves(run(w, *args)) for w in (before, after))
    worst = 0.0
    for a, b in zip(old, new, strict=True):
        a, b = (np.asarray(jnp.asarray(x, jnp.float32), float) for x in (a, b))
        largest = np.max(np.abs(a), initial=0.0)
        change = np.max(np.abs(a - b), initial=0.0) / max(largest, 1e-30)
        worst = max(worst, float(np.nan_to_num(change, nan=np.inf)))
    return worst


def check(
    what: str,
    f: Callable[..., Any],
    before: Any,
    after: Any,
    args: tuple,
    parts: Iterable[tuple[str, Any]],
    tolerance: float = 1e-3,
) -> None:
    """Raises a `RunError` unless f computes the same with both weights.

    Args:
      what: the name of the change.
      f: called as `f(weights, *args)`.
      before: weights, a nested dict.
      after: weights of the same structure.
      args: an example.
      parts: (path of a leaf, weights with its part of the change alone), to find out
        which one broke it; read only then.
      tolerance: the greatest change of the result, as a share of its greatest element.
    """
    found = error(f, before, after, args)
    if found <= tolerance:
        return
    old, new = tree.flatten(before), tree.flatten(after)
    path = next(p for p, x in new.items() if not np.array_equal(x, old[p]))
    for one, alone in parts:
        if error(f, before, alone, args) > tolerance:
            path = one
            break
    raise errors.RunError(
        f"{what}: the outputs changed by {found:.3g} of their size, more than "
        f"{tolerance:g}, through {path}"
    )
