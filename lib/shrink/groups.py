"""Groups: units of one kind, with the positions of each in every leaf that it cuts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lib.shrink.follow import Followed, follow
from lib.shrink.walker import Contraction


class Member(NamedTuple):
    """An axis of a leaf that a group cuts.

    Attributes:
      path: of the leaf, from the root of the weights: `params/conv/kernel`.
      axis: of the leaf.
      index: int `[units, positions]`: where each unit stands along the axis.
      role: "out" where the leaf's contraction makes the units, "in" where it sums over
        them, "both" in two of them, "" where none meets it (biases, norms).
    """

    path: str
    axis: int
    index: np.ndarray
    role: str


class Group(NamedTuple):
    """Units that may be removed one by one, each from all of its members at once.

    Attributes:
      name: after the first leaf that makes the units (or else the first that has them),
        less its collection and own name: `block_0/conv`; `:1` is added where that leaf
        has other groups along other axes, `#1` to a further group of the same name.
      size: how many units.
      members: of the weights.
      classes: of the units, `[units]`, in `Followed.units`.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    classes: np.ndarray

    def paths(self) -> tuple[str, ...]:
        """Returns the paths of its leaves, each once."""
        return tuple(dict.fromkeys(m.path for m in self.members))


class Pinned(NamedTuple):
    """An axis of a leaf of which nothing can be removed, and why."""

    path: str
    axis: int
    why: str


class Groups(NamedTuple):
    """What of a program's weights can be removed together, and what cannot.

    Attributes:
      groups: by the first leaf that they cut, in the weights' order.
      pinned: axes longer than 1 that stay as they are.
      missed: "scope: primitive" of equations without a rule; what they touch is pinned.
      contractions: for counting multiply-accumulates.
      followed: the program.
    """

    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    missed: tuple[str, ...]
    contractions: tuple[Contraction, ...]
    followed: Followed

    def named(self, name: str) -> Group:
        """Returns the group of a name."""
        return next(group for group in self.groups if group.name == name)


def groups(
    f: Callable[..., Any], *, alike: Sequence[tuple[str, str]] = ()
) -> Callable[..., Groups]:
    """Returns a function of f's arguments that finds what can be removed together.

    Nothing is computed: `f(weights, *args, **kwargs)` is traced once, and every axis of
    every leaf is followed through the program. A unit (a channel, a neuron, a head) is
    in a group if all that depends on it can be cut with it, so that the smaller program
    computes what the program computes with the unit's weights at 0. A table that is
    read by a product with one-hot rows is offered along its vocabulary too; one that is
    read by `jnp.take` is not.

    Args:
      f: pure; `weights` is a nested dict. What it returns keeps its shape.
      alike: pairs of paths of leaves that are one weight: they are cut alike.
    """

    def find(*args: Any, **kwargs: Any) -> Groups:
        return grouped(follow(f, args, kwargs, alike=alike))

    return find


def grouped(followed: Followed) -> Groups:
    """Returns the groups of a program that was followed."""
    units = followed.units
    # class -> {(path, axis): positions}
    places: dict[int, dict[tuple[str, int], list[int]]] = {}
    pinned = []
    for path, leaf in followed.leaves.items():
        for axis, along in enumerate(leaf.axes):
            found = units.bases(along)
            if not any(found) and len(along) > 1:
                pinned.append(Pinned(path, axis, units.why(along)))
            for position, bases in enumerate(found):
                for base in bases:
                    at = places.setdefault(base, {})
                    at.setdefault((path, axis), []).append(position)
    kinds: dict[Any, list[int]] = {}
    for base, at in places.items():
        shape = tuple((*key, len(positions)) for key, positions in at.items())
        kinds.setdefault((units.family(base), shape), []).append(base)
    unnamed = []
    for (_, shape), classes in kinds.items():
        members = tuple(
            Member(
                path,
                axis,
                np.array([places[c][path, axis] for c in classes]),
                followed.roles.get((path, axis), ""),
            )
            for path, axis, _ in shape
        )
        unnamed.append(Group("", len(classes), members, np.array(classes)))
    return Groups(
        tuple(_named(unnamed, followed.roles)),
        tuple(pinned),
        tuple(followed.missed),
        tuple(followed.contractions),
        followed,
    )


def _named(unnamed: Sequence[Group], roles: Iterable[tuple[str, int]]) -> list[Group]:
    """Returns groups with names that differ.

    Args:
      unnamed: the groups.
      roles: axes of leaves, in the order in which contractions meet them.
    """
    order = {place: i for i, place in enumerate(roles)}
    first = [_first(group, order) for group in unnamed]
    named, seen = [], {}
    for group, one in zip(unnamed, first, strict=True):
        parts = one.path.split("/")
        name = "/".join(parts[1:-1]) or parts[-1]
        along = {m.axis for m in first if m.path == one.path}
        if len(along) > 1:
            name += f":{one.axis}"
        seen[name] = seen.get(name, -1) + 1
        named.append(
            group._replace(name=f"{name}#{seen[name]}" if seen[name] else name)
        )
    return named


def _first(group: Group, order: Mapping[tuple[str, int], int]) -> Member:
    made = [m for m in group.members if m.role in ("out", "both")]
    return min(made, key=lambda m: order[m.path, m.axis]) if made else group.members[0]
