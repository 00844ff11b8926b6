"""Which units go: by share of each group, of all together, or down to a budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib import errors, tree
from lib.shrink.groups import Group, Groups

Removed = dict[str, np.ndarray]  # group -> numbers of its units
SCOPES = ("group", "global")


class Limits(NamedTuple):
    """What is left of a group whatever the scores are.

    Attributes:
      multiple: kept units are a multiple of this (8, 64, 128 suit tensor cores and the
        lanes of a TPU), or all of them; rounded up.
      floor: the least number of units that is kept.
    """

    multiple: int = 1
    floor: int = 1

    def kept(self, group: Group, removed: int) -> int:
        """Returns how many units stay where `removed` of them were to go."""
        least = max(group.size - removed, self.floor, 1)
        return min(group.size, math.ceil(least / self.multiple) * self.multiple)


def check(fraction: float, scope: str, limits: Limits) -> None:
    """Raises a `UserError` for settings out of range."""
    whole = scope == "group" and 1 <= fraction < math.inf and fraction % 1 == 0
    if not 0 <= fraction < 1 and not whole:
        raise errors.UserError(
            "the fraction of units to remove is in [0, 1), or by group a whole number "
            f"of units, got {fraction}"
        )
    if scope not in SCOPES:
        raise errors.UserError(f"unknown scope {scope!r}; {errors.hint(scope, SCOPES)}")
    if limits.multiple < 1 or limits.floor < 1:
        raise errors.UserError(
            f"multiple and floor are at least 1, got {limits.multiple}, {limits.floor}"
        )


def by_fraction(
    groups: Groups,
    scores: Mapping[str, np.ndarray],
    rules: Sequence[tuple[str, float]],
    *,
    scope: str = "group",
    limits: Limits | None = None,
) -> Removed:
    """Returns the units with the least scores, at least a fraction of them.

    Args:
      groups: of the program.
      scores: of each group.
      rules: pairs (regular expression over names of groups, fraction removed); the
        first match wins; what none matches is kept whole.
      scope: "group": that share of each group, rounded up (Li et al. 2017 count so), or
        that many units of each, where it is a whole number of at least 1; "global":
        the least of all groups of a rule together, wherever they are, so make scores
        of different groups comparable first.
      limits: of each group; they let fewer units go than the fraction says.

    Raises:
      UserError: a rule that matches no group, or a setting out of range.
    """
    limits = limits or Limits()
    named = {group.name: group for group in groups.groups}
    if not named:
        raise errors.UserError("nothing of this program can be removed")
    took = tree.match([pattern for pattern, _ in rules], named)
    removed: Removed = {}
    for number, (_, fraction) in enumerate(rules):
        check(fraction, scope, limits)
        some = [named[name] for name, rule in took.items() if rule == number]
        if scope == "group":
            counts = [
                fraction if fraction >= 1 else math.ceil(fraction * g.size - 1e-9)
                for g in some
            ]
        else:
            pooled = np.concatenate([scores[g.name] for g in some])
            go = math.ceil(fraction * pooled.size - 1e-9)
            order = np.argsort(pooled, kind="stable")[:go]
            ends = np.cumsum([g.size for g in some])
            counts = np.bincount(
                np.searchsorted(ends, order, side="right"), minlength=len(some)
            ).tolist()
        for group, count in zip(some, counts, strict=True):
            gone = group.size - limits.kept(group, int(count))
            if gone:
                order = np.argsort(scores[group.name], kind="stable")
                removed[group.name] = np.sort(order[:gone])
    return removed


def macs(groups: Groups, removed: Mapping[str, Sequence[int]]) -> int:
    """Returns the multiply-accumulates of one run of the program, less those units.

    Counted as `program.sites` counts: every tap of a convolution; a while is one turn.
    """
    units = groups.followed.units
    gone = units.marks()
    for group in groups.groups:
        if group.name in removed:
            gone[group.classes[np.asarray(removed[group.name], np.int64)]] = True
    total = 0
    for c in groups.contractions:
        product = c.window * c.calls
        for axis in (*c.out, *c.over):
            if axis is not None:
                product *= len(axis) - int(units.removed(axis, gone).sum())
        total += product
    return total


def to_budget(
    choose: Callable[[float], Removed],
    cost: Callable[[Removed], float],
    budget: float,
    *,
    steps: int = 20,
) -> Removed:
    """Returns the removal by the least fraction whose cost is within the budget.

    Args:
      choose: fraction in [0, 1) -> units to remove; more with a larger fraction.
      cost: of a removal: multiply-accumulates, milliseconds.
      budget: the most it may cost.
      steps: of the bisection.

    Raises:
      UserError: even the largest fraction costs more.
    """
    low, high = 0.0, 1 - 1e-6
    best = choose(high)
    if cost(best) > budget:
        raise errors.UserError(
            f"a budget of {budget:g} cannot be met: with all removed that may be it "
            f"costs {cost(best):g}"
        )
    if cost(choose(low)) <= budget:
        return choose(low)
    for _ in range(steps):
        middle = (low + high) / 2
        found = choose(middle)
        if cost(found) <= budget:
            best, high = found, middle
        else:
            low = middle
    return best
