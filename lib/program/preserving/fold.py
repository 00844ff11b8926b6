"""Batch norms folded into the kernels before them, the program left as it is.

In evaluation a batch norm computes `(y - mean) * m + bias` with the multiplier
`m = scale * rsqrt(variance + epsilon)`. The kernel (and its bias, and the mean) takes m
over, channel by channel, and the norm's own leaves are set so that its multiplier is
1: what is quantized is the kernel that will run (Jacob et al. 2018, arXiv 1712.05877,
section 3.2, eq. 14). The variance goes with m**2, so that training mode, too, computes
what it did; of a norm written as a division before its scale, evaluation alone does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lib.program.preserving import absorb
from lib.program.preserving.absorb import Unfit
from lib.program.preserving.behind import tail
from lib.program.preserving.graph import Graph, graph
from lib.program.preserving.norms import norm
from lib.program.preserving.preserve import Change, check


def fold_batch_norm(
    f: Callable[..., Any], *, tolerance: float = 1e-3
) -> Callable[..., tuple[Any, list[Change]]]:
    """Returns a function of f's arguments that returns `(weights, changes)`.

    Every contraction with a weight of its own that is multiplied by other weights,
    channel by channel, before anything but sums with weights happens to its output:
    dense, convolution, grouped and depthwise. One `Change` for each contraction with a
    weight, in program order.

    Args:
      f: pure, `f(weights, *args)`, in evaluation mode; `weights` a nested dict that
        holds params and running statistics.
      tolerance: the greatest change of f's result, as a share of its greatest element.

    Raises:
      RunError: when the result is called: the program does not compute what it did.
    """

    def folded(weights, *args):
        g = graph(f)(weights, *args)
        new, changes, parts = weights, [], []
        for i, node in enumerate(g.nodes):
            if node.site is None or g.weighed(node) is None:
                continue
            try:
                new, paths = _fold(g, i, new)
            except Unfit as e:
                changes.append(Change(node.scope, (), str(e)))
                continue
            changes.append(Change(node.scope, paths, ""))
            parts.append((i, paths[0]))
        alone = ((path, _fold(g, i, weights)[0]) for i, path in parts)
        if parts:
            check("fold_batch_norm", f, weights, new, args, alone, tolerance)
        return new, changes

    return folded


def _fold(g: Graph, number: int, weights: Any) -> tuple[Any, tuple[str, ...]]:
    """Returns weights with one contraction folded, and the paths that changed."""
    behind = tail(g, number)
    kinds = [term.kind for term in behind.terms]
    products = [i for i, kind in enumerate(kinds) if kind in ("mul", "div")]
    if not products:
        raise Unfit(f"no product by channel before {behind.end}")
    new, later = weights, np.ones(behind.count)
    paths: list[str] = []
    for term in reversed(behind.terms[: products[-1] + 1]):
        if term.kind in ("add", "sub"):
            leaves = absorb.factors(g, term.value, term.labels)
            new = absorb.multiplied(new, leaves, later)
            paths += leaves
            continue
        found = norm(g, term.scope, term.kind, term.value, term.labels)
        multiplier = found.multiplier(weights)
        if not np.isfinite(multiplier).all():
            raise Unfit(f"{term.scope}: its multiplier is not finite")
        later = later * multiplier
        new = found.moved(new, later, np.ones_like(later))
        paths += [*found.variance, *found.scale]
    new = absorb.multiplied(new, behind.weight, later)
    return new, (*behind.weight, *paths[::-1])
