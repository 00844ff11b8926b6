"""The proof of a cut: the large weights with zeros give what the small ones give."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.shrink import plan as plans
from lib.shrink.plan import Plan
from lib.shrink.resize import resize

TOLERANCE = 1e-4  # of the greatest element of the result; float32 sums of another order


def difference(
    f: Callable[..., Any], plan: Plan, weights: Any, batches: Iterable[tuple[Any, ...]]
) -> tuple[float, float]:
    """Returns the largest difference of masked and small, and the largest output.

    Args:
      f: pure, `f(weights, *args)`, deterministic.
      plan: the cut.
      weights: before the cut.
      batches: tuples of `args`. NaN or infinity in either result is infinite.
    """
    masked, small = plans.mask(plan, weights), plans.cut(plan, weights)
    large, cut = jax.jit(f), jax.jit(resize(f, plan))
    worst = largest = 0.0
    for args in batches:
        old, new = (
            jax.tree.leaves(g(w, *args)) for g, w in ((large, masked), (cut, small))
        )
        for a, b in zip(old, new, strict=True):
            a, b = (np.asarray(jnp.asarray(x, jnp.float32), float) for x in (a, b))
            with np.errstate(invalid="ignore"):  # inf - inf is told as infinite
                apart = np.abs(a - b)
            worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max(initial=0)))
            largest = max(largest, float(np.abs(a).max(initial=0)))
    return worst, largest


def prove(
    f: Callable[..., Any],
    plan: Plan,
    weights: Any,
    batches: Iterable[tuple[Any, ...]],
    *,
    parts: Mapping[str, Plan],
    tolerance: float = TOLERANCE,
) -> float:
    """Returns the largest difference between the masked and the small program.

    Args:
      f: pure, `f(weights, *args)`, deterministic (in evaluation).
      plan: the cut.
      weights: before the cut.
      batches: tuples of `args`, such as random inputs.
      parts: path of a leaf -> the part of the plan that cuts it, each valid alone; read
        only to find out which of them is wrong.
      tolerance: the greatest difference that is let pass, as a share of the greatest
        element of the result.

    Raises:
      UserError: there are no batches.
      RunError: they differ by more, with a leaf through which they do.
    """
    batches = list(batches)
    if not batches:
        raise errors.UserError("a cut is proved on at least one batch, got none")

    def holds(part: Plan) -> tuple[bool, float, float]:
        worst, largest = difference(f, part, weights, batches)
        alike = np.isfinite(worst) and worst <= tolerance * max(largest, 1e-30)
        return bool(alike), worst, largest

    alike, worst, largest = holds(plan)
    if alike:
        return worst
    through = "the cut as a whole"
    for path, alone in parts.items():
        if not holds(alone)[0]:
            through = path
            break
    raise errors.RunError(
        f"the cut is not what the masks are: results differ by {worst:.3g} where the "
        f"largest is {largest:.3g}, through {through}"
    )
