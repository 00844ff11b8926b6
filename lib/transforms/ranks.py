"""Which rank: the one asked for, the least that keeps an energy, or a shared budget.

A weight counts as a matrix `[contraction, out]`: all axes but the last, and the last.
Energy is a squared singular value; what is cut away is the squared error (Eckart &
Young 1936), so shares of energy are shares of the squared norm that survive.
"""

import heapq
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib import errors

Ranks = dict[str, int | None]  # None: the leaf stays whole


def matrix(path: str, w: Any, technique: str) -> tuple[int, int]:
    """Returns `(contraction, out)` of a leaf.

    Raises:
      UserError: the leaf has fewer than two axes.
    """
    if len(w.shape) < 2:
        raise errors.UserError(
            f"{technique}: {path} has shape {tuple(w.shape)}; expected a matrix or a "
            "convolution, so aim by pattern"
        )
    return math.prod(w.shape[:-1]), w.shape[-1]


def largest(rows: int, columns: int) -> int:
    """Returns the largest rank whose factors hold no more than the matrix; 0: none."""
    return rows * columns // max(rows + columns, 1)


def share(value: float, name: str) -> None:
    """Raises a `UserError` unless `value` is in (0, 1], or 0: not given."""
    if not 0 <= value <= 1:
        raise errors.UserError(f"{name} is a share above 0 and at most 1, got {value}")


def whole(value: int, name: str, *, least: int = 0) -> None:
    """Raises a `UserError` unless `value` is whole and at least `least`, 0 or 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise errors.UserError(f"{name} is a whole number, got {value!r}")
    if value < least:
        raise errors.UserError(f"{name} is at least {least}, got {value}")


def by_energy(energies: np.ndarray, energy: float) -> int:
    """Returns the smallest rank, at least 1, that keeps a share of the energy.

    Args:
      energies: squared singular values, largest first, `[full rank]`.
      energy: in (0, 1].
    """
    kept = np.cumsum(np.asarray(energies, np.float64))
    return int(np.argmax(kept >= energy * kept[-1])) + 1


def by_budget(
    energies: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, int]],
    budget: float,
) -> Ranks:
    """Returns ranks that spend a budget of weights where it keeps most energy.

    From rank 1 everywhere, the leaf whose next singular value has the most energy a
    weight gets it, until nothing that is left fits. What comes after the largest rank
    that pays is the whole leaf, with all its energy.

    Args:
      energies: {path: squared singular values, largest first, `[full rank]`}.
      shapes: {path: (contraction, out)}, none of them empty.
      budget: share in (0, 1] of the weights of all leaves together.

    Raises:
      UserError: the budget does not reach for rank 1 everywhere.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    # As exact as the budget's decimal: 0.1 * 30 is a little more than 3.
    left = math.floor(budget * total + 1e-9 * total)
    chosen: Ranks = {}
    for path, shape in shapes.items():
        chosen[path] = 1 if largest(*shape) else None
        left -= min(sum(shape), math.prod(shape))
    if left < 0:
        least = math.floor(budget * total + 1e-9 * total) - left
        raise errors.UserError(
            f"factorize: a budget of {budget} of {total} weights is too small; rank 1 "
            f"of every leaf takes {least}, a share of {least / total:.3g}"
        )

    def step(path: str) -> tuple[float, str, int, int | None]:
        """Returns (-energy a weight, path, weights, rank) of a leaf's next step."""
        rank, most = chosen[path], largest(*shapes[path])
        kept = np.asarray(energies[path], np.float64)
        if rank < most:
            cost, gain, following = sum(shapes[path]), kept[rank], rank + 1
        else:
            cost = math.prod(shapes[path]) - rank * sum(shapes[path])
            gain, following = kept[rank:].sum(), None
        return -(gain / cost if cost else math.inf), path, cost, following

    steps = [step(path) for path, rank in chosen.items() if rank is not None]
    heapq.heapify(steps)
    while steps:
        _, path, cost, following = heapq.heappop(steps)
        if cost > left:
            continue  # nor will it later, as what is left only shrinks
        left -= cost
        chosen[path] = following
        if following is not None:
            heapq.heappush(steps, step(path))
    return chosen
