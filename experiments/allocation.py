"""Which option each layer takes, so that the sum costs least within a budget of bytes.

The multiple-choice knapsack (Sinha & Zoltners 1979), solved by merging layer after
layer and keeping only the sums that no other one beats.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST = 4000  # sums kept between two layers; more are thinned out by bytes


class Option(NamedTuple):
    """What one layer may become.

    Attributes:
      bytes: that it takes.
      cost: that it adds, at least 0.
    """

    bytes: int
    cost: float


class Choice(NamedTuple):
    """One option a layer.

    Attributes:
      bytes: of all layers.
      cost: of all layers.
      options: the place of each layer's option.
    """

    bytes: int
    cost: float
    options: tuple[int, ...]


def front(layers: Sequence[Sequence[Option]]) -> list[Choice]:
    """Returns every choice that no other beats, fewest bytes first.

    A choice is beaten by one of no more bytes and no more cost that differs in one of
    the two; of equal ones the first by its options is there. Where a merge leaves more
    than `MOST`, only the cheapest in each of so many equal steps of bytes goes on.

    Args:
      layers: the options of each.
    """
    sums, costs = np.zeros(1, np.int64), np.zeros(1)
    trails: list[tuple[np.ndarray, np.ndarray]] = []
    for options in layers:
        size = np.array([one.bytes for one in options], np.int64)
        cost = np.array([one.cost for one in options], float)
        total = (sums[:, None] + size[None, :]).ravel()
        price = (costs[:, None] + cost[None, :]).ravel()
        kept = _unbeaten(total, price)
        trails.append(np.divmod(kept, len(options)))
        sums, costs = total[kept], price[kept]
    found = []
    for last in range(len(sums)):
        place, chosen = last, []
        for before, option in reversed(trails):
            chosen.append(int(option[place]))
            place = before[place]
        found.append(Choice(int(sums[last]), float(costs[last]), tuple(chosen[::-1])))
    return found


def _unbeaten(total: np.ndarray, price: np.ndarray) -> np.ndarray:
    order = np.lexsort((np.arange(len(total)), price, total))
    ordered = price[order]
    lowest = np.concatenate([[np.inf], np.minimum.accumulate(ordered)[:-1]])
    kept = order[ordered < lowest]
    if len(kept) <= MOST:
        return kept
    span = total[kept] - total[kept[0]]
    step = (span * (MOST - 1)) // max(int(span[-1]), 1)
    # Costs fall as bytes grow: the last of a step is its cheapest. The first stays.
    last = np.append(step[1:] != step[:-1], True)
    last[0] = True
    return kept[last]


def within(choices: Sequence[Choice], budget: int) -> Choice | None:
    """Returns the cheapest choice of at most `budget` bytes; None if there is none.

    Args:
      choices: as `front` returns them.
      budget: bytes of all layers.
    """
    fitting = [one for one in choices if one.bytes <= budget]
    return fitting[-1] if fitting else None
