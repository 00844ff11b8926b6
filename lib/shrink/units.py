"""Units: what is removed or kept as one, found by joining positions that must agree.

Every position of every axis has a unit, an int. Joining two units says that either both
are removed or neither is; a union-find holds the classes. A position that several axes
were merged into (heads x head size, flattened to one axis) belongs to a *product*: it
is removed as soon as one of its parts is. A unit that is *pinned* is never removed.
"""

from collections.abc import Iterable

import numpy as np

Axis = np.ndarray  # `[n]`, the unit of each position
PINNED = 0  # a unit that is pinned from the start


class Units:
    """The classes of units, their parts and which of them are pinned, and why."""

    def __init__(self) -> None:
        """Begins with `PINNED` alone."""
        self._parent = np.zeros(1024, np.int64)
        self._family = np.zeros(1024, np.int64)  # numbers the calls of `fresh`
        self._why = np.zeros(1024, np.int64)  # of a class: 0, or a number of `_reasons`
        self._has_parts = np.zeros(1024, bool)
        self._count, self._families = 1, 1
        self._reasons = ["", "it follows the inputs of the program"]
        self._why[PINNED] = 1
        self._parts: dict[int, tuple[int, ...]] = {}  # of a class
        self._products: dict[tuple[int, ...], int] = {}
        self.settled_for_good = False  # True: nothing is pinned any more

    def fresh(self, count: int) -> Axis:
        """Returns units of a new family, `[count]`, joined with nothing."""
        first, self._count = self._count, self._count + count
        while self._count > len(self._parent):
            for name in ("_parent", "_family", "_why", "_has_parts"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        new = np.arange(first, self._count)
        self._parent[new] = new
        self._family[new] = self._families
        self._families += 1
        return new

    def find(self, units: Axis) -> Axis:
        """Returns the class of each unit: the least unit that is joined with it."""
        units = np.asarray(units)
        found = self._parent[units]
        while True:
            above = self._parent[found]
            if (above == found).all():
                break
            found = above
        self._parent[units] = found
        return found

    def is_pinned(self, units: Axis) -> np.ndarray:
        """Returns which units are never removed: products, if all of their parts."""
        classes = self.find(units)
        pinned = self._why[classes] > 0
        for i in np.flatnonzero(self._has_parts[classes] & ~pinned):
            pinned[i] = not self.base(int(classes[i]))
        return pinned

    def settled(self, units: Axis) -> Axis:
        """Returns the class of each unit, `PINNED` for those that are pinned."""
        return np.where(self.is_pinned(units), PINNED, self.find(units))

    def why(self, units: Iterable[int]) -> str:
        """Returns the reason why the first of these units that is pinned is so."""
        for unit in units:
            one = int(self.find(np.asarray([unit]))[0])
            if self._why[one]:
                return self._reasons[self._why[one]]
            for part in self._parts.get(one, ()):
                if why := self.why([part]):
                    return why
        return ""

    def family(self, unit: int) -> int:
        """Returns the number of the family that a unit's class began in."""
        return int(self._family[self.find(np.asarray([unit]))[0]])

    def pin(self, units: Axis, why: str) -> None:
        """Says that none of these units is ever removed.

        Args:
          units: to pin, with their parts.
          why: for a person to read.
        """
        if self.settled_for_good:
            return
        classes = np.unique(self.find(units))
        some = classes[self._why[classes] == 0]
        if not some.size:
            return
        self._reasons.append(why)
        self._why[some] = len(self._reasons) - 1
        for one in some[self._has_parts[some]]:
            self.pin(np.asarray(self._parts[int(one)]), why)

    def base(self, unit: int) -> tuple[int, ...]:
        """Returns the classes whose removal removes a unit; () if it is pinned."""
        one = int(self.find(np.asarray([unit]))[0])
        if self._why[one]:
            return ()
        if one not in self._parts:
            return (one,)
        return self._live(self._parts[one])

    def bases(self, axis: Axis) -> list[tuple[int, ...]]:
        """Returns `base` of each position."""
        classes = self.find(axis)
        found = [
            () if pinned else (one,)
            for one, pinned in zip(
                classes.tolist(), (self._why[classes] > 0).tolist(), strict=True
            )
        ]
        for i in np.flatnonzero(self._has_parts[classes]):
            found[i] = self.base(int(classes[i]))
        return found

    def marks(self) -> np.ndarray:
        """Returns False for every class."""
        return np.zeros(self._count, bool)

    def removed(self, axis: Axis, gone: np.ndarray) -> np.ndarray:
        """Returns which positions of an axis are removed: bool `[n]`.

        Args:
          axis: units; those that are newer than `gone` are not removed.
          gone: of `marks`, True for the classes that are removed.
        """
        classes = self.find(axis)
        found = np.zeros(len(classes), bool)
        old = classes < len(gone)
        found[old] = gone[classes[old]]
        for i in np.flatnonzero(self._has_parts[classes]):
            bases = [b for b in self.base(int(classes[i])) if b < len(gone)]
            found[i] = bool(gone[bases].any())
        return found

    def product(self, outer: Axis, inner: Axis) -> Axis:
        """Returns the units of two axes merged, `[len(outer) * len(inner)]`."""
        a, b = np.broadcast_arrays(
            self.settled(outer)[:, None], self.settled(inner)[None, :]
        )
        merged = np.where(a == PINNED, b, a).ravel()
        both = (a != PINNED) & (b != PINNED)
        for i in np.flatnonzero(both.ravel()):
            merged[i] = self._pair(int(a.flat[i]), int(b.flat[i]))
        return merged

    def _pair(self, *parts: int) -> int:
        """Returns the unit that is removed if one of the parts is."""
        parts = self._live(parts)
        if len(parts) < 2:
            return parts[0] if parts else PINNED
        if parts not in self._products:
            (unit,) = self.fresh(1)
            self._parts[int(unit)] = parts
            self._has_parts[unit] = True
            self._products[parts] = int(unit)
        return self._products[parts]

    def split(self, axis: Axis, outer: int, inner: int) -> tuple[Axis, Axis]:
        """Returns the units of the two axes, `[outer]` and `[inner]`, of a merged one.

        Where the positions were not made by a merge, they become products of new units.
        """
        rows = self.settled(axis).reshape(outer, inner)
        layers = self._layers(rows)
        if layers is None:
            self.pin(axis, "it is split into axes that it was not made of")
            return np.zeros(outer, np.int64), np.zeros(inner, np.int64)
        first, second = np.zeros(outer, np.int64), np.zeros(inner, np.int64)
        for layer in layers:
            if (layer == layer[:, :1]).all():
                left, right = layer[:, 0], np.zeros(inner, np.int64)
            elif (layer == layer[:1]).all():
                left, right = np.zeros(outer, np.int64), layer[0]
            else:
                left, right = self.fresh(outer), self.fresh(inner)
                self.join(layer.ravel(), self.product(left, right), "it is split")
            first = np.array([self._pair(*u) for u in zip(first, left, strict=True)])
            second = np.array([self._pair(*u) for u in zip(second, right, strict=True)])
        return first, second

    def _layers(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """Returns the parts of products, one array each; None if they do not align."""
        if not self._has_parts[rows].any():
            return [rows]
        bases = [self.base(int(u)) for u in rows.ravel()]
        if len({len(b) for b in bases}) > 1:
            return None
        return [
            np.array(layer).reshape(rows.shape) for layer in zip(*bases, strict=True)
        ]

    def join(self, a: Axis, b: Axis, why: str) -> None:
        """Says that units are removed together, pair by pair.

        Args:
          a: `[n]`.
          b: `[n]`.
          why: they agree; told where products cannot, which pins them.
        """
        while True:
            a, b = self.find(a), self.find(b)
            apart = a != b
            if not apart.any():
                return
            a, b = a[apart], b[apart]
            products = self._has_parts[a] | self._has_parts[b]
            if products.any():
                for i in np.flatnonzero(products):
                    self._join_one(int(a[i]), int(b[i]), why)
                continue
            low, high = np.minimum(a, b), np.maximum(a, b)
            once, index = np.unique(high, return_index=True)
            self._attach(once, low[index])

    def _attach(self, high: Axis, low: Axis) -> None:
        self._parent[high] = low
        # What a class was attached to may have been attached itself, in this very call.
        tops = self.find(low)
        for one in np.flatnonzero(self._why[high]):
            if not self._why[tops[one]]:
                self._why[tops[one]] = self._why[high[one]]

    def _join_one(self, a: int, b: int, why: str) -> None:
        """Joins two units of which at least one may be a product."""
        a, b = (int(u) for u in self.find(np.array([a, b])))
        if a == b:
            return
        left, right = self._parts.pop(a, None), self._parts.pop(b, None)
        self._has_parts[[a, b]] = False
        low, high = min(a, b), max(a, b)
        pinned = bool(self._why[a] or self._why[b])
        self._attach(np.array([high]), np.array([low]))
        parts = [self._live(p) for p in (left, right) if p is not None]
        if pinned:
            for some in parts:
                self.pin(np.asarray(some, np.int64), self.why([low]))
            return
        own = {low}
        if len(parts) == 2 and set(parts[0]) != set(parts[1]):
            if len(parts[0]) == len(parts[1]):
                self.join(np.asarray(parts[0]), np.asarray(parts[1]), why)
                parts = [self._live(parts[0])]
            else:
                for some in parts:
                    self.pin(np.asarray(some, np.int64), why)
                self.pin(np.array([low]), why)
                return
        rest = parts[0]
        if own & set(rest):  # removed with itself and with something else
            self.pin(np.asarray(rest, np.int64), why)
            self.pin(np.array([low]), why)
        elif not rest:
            self.pin(np.array([low]), why)
        elif len(rest) == 1:
            self.join(np.array([low]), np.asarray(rest), why)
        else:
            self._parts[low] = rest
            self._has_parts[low] = True

    def _live(self, parts: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the classes whose removal removes one of the parts, each once."""
        return tuple(dict.fromkeys(b for part in parts for b in self.base(part)))
