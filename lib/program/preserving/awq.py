"""AWQ: weights that meet large activations scaled up before they are rounded.

Lin et al. 2023, arXiv 2306.00978, section 3.2. The weight's rows are multiplied by
`s = mean|X|**alpha` and what comes before is divided by it, as `smooth` does it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.inputs import accumulate, gram, inputs, unfed
from lib.program.preserving.channels import NONE
from lib.program.preserving.links import Link
from lib.program.preserving.preserve import Change, check
from lib.program.preserving.smooth import choose, magnitudes


def awq(
    f: Callable[..., Any],
    weights: Any,
    batches: Sequence[tuple[Any, ...]],
    *,
    example: tuple[Any, ...],
    rounding: Callable[[Any], Any],
    points: int,
    pattern: str = ".",
    tolerance: float = 1e-3,
) -> tuple[Any, list[Change]]:
    """Returns weights scaled so that rounding them changes outputs least.

    For each link alpha is the best of `points` from 0 to 1 (eq. 5), by the squared
    error of the rounded contractions' outputs over the batches, all that read the
    value together; `alpha = 0`, no change, is one of them. The scales are divided by
    `sqrt(max s * min s)`, as in the authors' code.

    Args:
      f: pure, `f(weights, *args)`, in evaluation mode.
      weights: a nested dict.
      batches: tuples of `args`; read twice.
      example: a small `args`, to follow the program with.
      rounding: weights -> weights as they will be rounded; called `points` times for
        each link.
      points: of the grid, at least 2; 20 in the paper.
      pattern: regular expression over the names of the contractions; see `smooth`.
      tolerance: the greatest change of f's result, as a share of its greatest element.

    Returns:
      The weights, and a `Change` for each contraction that the pattern takes.

    Raises:
      UserError: too few points, no batches, NaN or infinity in an input, a pattern
        that takes no contraction with a weight.
      RunError: the program does not compute what it did.
    """
    if points < 2:
        raise errors.UserError(f"awq: points is at least 2, got {points}")
    chosen, changes = choose("awq", f, weights, example, pattern)
    if not chosen:
        return weights, changes
    ends = {path: link for link in chosen for path in link.shrink}
    pattern = "^({})$".format("|".join(map(re.escape, ends)))
    left = {m.name: m.why for m in unfed(f, pattern=pattern)(weights, *example)}
    fed = jax.eval_shape(inputs(f, gram, pattern=pattern), weights, *example)
    several = "its inputs are in groups, or in slices of a scan"
    left |= {path: several for path, second in fed.items() if second.ndim != 2}
    chosen = [link for link in chosen if not set(link.shrink) & set(left)]
    sites = {
        reader.site: left[reader.path]
        for link in ends.values()
        for reader in link.readers
        if reader.path in left
    }
    changes = [
        Change(c.name, (), sites[c.name]) if c.name in sites else c for c in changes
    ]
    if not chosen:
        return weights, changes
    seen = magnitudes("awq", f, weights, batches, chosen)
    kept = [path for link in chosen for path in link.shrink]
    pattern = "^({})$".format("|".join(map(re.escape, kept)))
    grams = accumulate(f, gram, weights, batches, pattern=pattern)
    new, parts = weights, []
    for link, values in zip(chosen, seen, strict=True):
        tried = [_scales(values.mean, a) for a in np.linspace(0, 1, points)]
        losses = [_loss(link, new, s, rounding, grams) for s in tried]
        best = tried[int(np.argmin(losses))]
        new = link.scaled(new, 1 / best)
        parts.append((link, best))
    alone = ((link.path, link.scaled(weights, 1 / best)) for link, best in parts)
    check("awq", f, weights, new, example, alone, tolerance)
    return new, changes


def _scales(mean: np.ndarray, alpha: float) -> np.ndarray:
    """Returns `[channels]` factors of the weight's rows."""
    scales = np.maximum(mean, 1e-4) ** alpha
    return scales / np.sqrt(scales.max() * scales.min())


def _loss(link: Link, weights: Any, scales: np.ndarray, rounding, grams) -> float:
    """Returns the squared error of the outputs of all that read a link.

    `sum (x d)**2 = trace(d.T (x.T x) d)`, d the error of the weight as it acts on the
    input before it was scaled.
    """
    rounded = rounding(link.scaled(weights, 1 / scales))
    loss = 0.0
    for path, labels in link.shrink.items():
        second = np.asarray(grams[path], float)
        old, new = (
            np.asarray(jnp.asarray(tree.get(w, path), jnp.float32), float)
            for w in (weights, rounded)
        )
        new = new / np.where(labels == NONE, 1, scales[labels])
        error = (new - old).reshape(len(second), -1)
        loss += float(np.sum(error * (second @ error)))
    return loss
