"""Running statistics measured anew, by whatever updates them in training.

Batch norms evaluate with averages of what they saw in training. Weights that were
rounded since give other values; their statistics are those of the batches, averaged
with equal weights, not with a momentum that never forgets where it began.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.preserving.preserve import Change


def reestimate(
    update: Callable[..., Any], variables: Any, batches: Iterable[tuple[Any, ...]]
) -> tuple[Any, list[Change]]:
    """Returns variables with running averages replaced by those of some batches.

    An average that training updates as `momentum * old + (1 - momentum) * batch` is
    found by updating from 0 and from 1, so that neither its name nor its momentum need
    be known. What is not updated like that is left.

    Args:
      update: `update(variables, *args)` returns the variables after one batch, as in
        training; what it updates with does not depend on the variables.
      variables: a nested dict of arrays.
      batches: tuples of `args`, at least one; read once.

    Returns:
      The variables, and a `Change` for each leaf.

    Raises:
      UserError: no batches, no variables, NaN or infinity in a statistic.
    """
    flat = tree.flatten(variables)
    if not flat:
        raise errors.UserError("reestimate: the model keeps no running statistics")

    @jax.jit
    def probe(*args):
        ends = []
        for value in (0, 1, 2):
            full = {path: jnp.full_like(x, value) for path, x in flat.items()}
            end = tree.flatten(update(tree.unflatten(full), *args))
            ends.append({path: end[path].astype(jnp.float32) for path in flat})
        return ends

    total: dict[str, np.ndarray] = {}
    why: dict[str, str] = {}
    count = 0
    for batch in batches:
        count += 1
        ends = [{p: np.asarray(x, float) for p, x in e.items()} for e in probe(*batch)]
        for path in flat:
            zero, one, two = (end[path] for end in ends)
            momentum = np.median(one - zero)
            if not np.isfinite([zero, one, two]).all():
                raise errors.UserError(f"reestimate: {path} gets NaN or infinity")
            scale = 1e-4 * (1 + np.max(np.abs(zero), initial=0))
            even = np.abs(two - one - momentum).max(initial=0) <= scale
            even &= np.abs(one - zero - momentum).max(initial=0) <= scale
            if momentum > 1 - 1e-6 and even:
                why[path] = "training does not update it"
            elif not even or momentum < -scale:
                why[path] = "it is no running average"
            else:
                total[path] = total.get(path, 0.0) + zero / (1 - momentum)
    if not count:
        raise errors.UserError("reestimate: got no batches, expected at least one")
    new = {
        path: jnp.asarray(sums / count, jnp.float32).astype(flat[path].dtype)
        for path, sums in total.items()
        if path not in why
    }
    changes = [
        Change(path, (path,) if path in new else (), why.get(path, "")) for path in flat
    ]
    return tree.replace(variables, new), changes
