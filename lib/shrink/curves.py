"""Units of different groups compared by what the share of a group that goes costs.

A norm says which unit of a layer goes first, and little of which layer. What a layer
minds is measured share by share, as Li et al. 2017 (arXiv 1608.08710, section 3.2) do
to set its share by hand; here the curves set it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lib.shrink.choose import macs
from lib.shrink.groups import Groups
from lib.shrink.scores import Scores

PARTS = 8  # of a group between two points of its curve


def counts(size: int) -> tuple[int, ...]:
    """Returns how many units of a group are removed at the points of its curve.

    None, each eighth of them, and all but one.
    """
    eighths = {-(-size * part // PARTS) for part in range(PARTS)}
    return tuple(sorted({n for n in (*eighths, size - 1) if 0 <= n < size}))


def by_curve(
    groups: Groups,
    scores: Mapping[str, np.ndarray],
    costs: Mapping[str, Sequence[float]],
) -> Scores:
    """Returns each unit's place in the order in which units of all groups go.

    Those go first whose group's curve is flattest there: cost for each
    multiply-accumulate saved, along the lower convex hull of its points, which is what
    a Lagrangian of the two takes, if costs add up. Those of small changes of the
    outputs do in their squares, where they are not correlated. Within a group units go
    by `scores`.

    Args:
      groups: of the program.
      scores: of the units of each group; the least goes first.
      costs: of each group, at each of its `counts`, with the other groups whole; what
        is below the first costs nothing.
    """
    whole = macs(groups, {})
    orders, keys = [], []
    for group in groups.groups:
        order = np.argsort(scores[group.name], kind="stable")
        removed = counts(group.size)
        saved = np.array(
            [whole - macs(groups, {group.name: order[:n]}) for n in removed]
        )
        cost = np.asarray(costs[group.name], float)
        steep = _slopes(saved, np.maximum(cost, cost[0]))
        # The last unit never goes: it counts with those before it.
        segment = np.searchsorted(removed, np.arange(group.size), side="right") - 1
        each = np.append(steep, steep[-1:] if len(steep) else np.inf)[segment]
        orders.append(order)
        keys.append(np.stack([np.arange(group.size) / group.size, each]))
    places = np.empty(sum(len(order) for order in orders))
    places[np.lexsort(np.concatenate(keys, axis=1))] = np.arange(len(places))
    found, start = {}, 0
    for group, order in zip(groups.groups, orders, strict=True):
        found[group.name] = np.empty(group.size)
        found[group.name][order] = places[start : start + group.size]
        start += group.size
    return found


def _slopes(saved: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Returns the slopes of the lower convex hull between points, none falling."""
    steep, here = np.zeros(len(saved) - 1), 0
    while here < len(steep):
        to = (added[here + 1 :] - added[here]) / np.maximum(
            saved[here + 1 :] - saved[here], 1
        )
        there = here + 1 + int(np.argmin(to))
        steep[here:there] = to.min()
        here = there
    return steep
