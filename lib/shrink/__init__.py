"""Removal of channels, neurons, heads and whole branches from any traced program.

`groups` finds what can go together, a score says what goes, `make` writes it down as a
plan, `cut` makes the weights small and `resize` runs the same function at their sizes;
`prove` compares the result with that of the large weights with zeros.
"""

from lib.shrink.blocks import Branch, branches, drop
from lib.shrink.choose import (
    SCOPES,
    Limits,
    Removed,
    by_fraction,
    check,
    macs,
    to_budget,
)
from lib.shrink.groups import Group, Groups, Member, Pinned, groups
from lib.shrink.plan import (
    Cut,
    Plan,
    compose,
    cut,
    cut_state,
    from_plain,
    full,
    make,
    mask,
)
from lib.shrink.proof import TOLERANCE, difference, prove
from lib.shrink.resize import resize
from lib.shrink.twins import twins

__all__ = [
    "Branch",
    "Cut",
    "Group",
    "Groups",
    "Limits",
    "Member",
    "Pinned",
    "Plan",
    "Removed",
    "SCOPES",
    "TOLERANCE",
    "branches",
    "by_fraction",
    "check",
    "compose",
    "cut",
    "cut_state",
    "difference",
    "drop",
    "from_plain",
    "full",
    "groups",
    "macs",
    "make",
    "mask",
    "prove",
    "resize",
    "to_budget",
    "twins",
]
