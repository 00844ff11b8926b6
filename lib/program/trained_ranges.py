"""Which numbers of the ranges are trained, and how they stand among the others.

Ranges stay pairs `(smallest, largest)` for everyone who reads them. What the optimiser
is given is a tree of its own, `{site: {side: {"largest": ...}}}`, whose names hold "."
for a site's "/", as a tree's names cannot hold that.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lib.program.calibrate import Range, Ranges

Trained = dict[str, dict[str, dict[str, jax.Array]]]
Settings = Mapping[str, Any]


def settings_of(name: str, rules: Sequence[tuple[str, Any]]) -> Settings | None:
    """Returns the settings of the first rule whose pattern is found in a site's name.

    None where there is no such rule, or where it exempts the site.
    """
    return next((s for pattern, s in rules if re.search(pattern, name)), None)


def learns(settings: Settings | None) -> bool:
    """Returns whether a rule's ranges are trained."""
    return bool(settings) and bool(settings.get("learn", ""))


def trained(ranges: Ranges, rules: Sequence[tuple[str, Any]]) -> Trained:
    """Returns what is trained of the ranges; {} where no rule learns."""
    found: Trained = {}
    for name, sides in ranges.items():
        settings = settings_of(name, rules)
        if learns(settings):
            found[_key(name)] = {
                side: _trained(bounds, settings) for side, bounds in sides.items()
            }
    return found


def _key(name: str) -> str:
    return name.replace("/", ".")


def _trained(bounds: Range, settings: Settings) -> dict[str, jax.Array]:
    if settings["learn"] == "lsq+":
        return {"smallest": bounds[0], "largest": bounds[1]}
    return {"largest": bounds[1]}


def with_trained(
    ranges: Ranges, values: Trained, rules: Sequence[tuple[str, Any]]
) -> Ranges:
    """Returns the ranges with what is trained in its place; `trained` undoes it."""

    def replaced(bounds: Range, settings: Settings, path: tuple[str, str]) -> Range:
        return _pair(bounds, settings, values[path[0]][path[1]])

    return _each(ranges, rules, replaced)


def first_ranges(ranges: Ranges, rules: Sequence[tuple[str, Any]]) -> Ranges:
    """Returns calibrated ranges as training starts from them.

    Those that are trained hold 0, as every grid does; symmetric ones are as wide to
    both sides. The rest is as it was.
    """

    def first(bounds: Range, settings: Settings, path: tuple[str, str]) -> Range:
        del path
        smallest, largest = (jnp.asarray(bound) for bound in bounds)
        if settings["symmetric"]:
            most = jnp.maximum(jnp.abs(smallest), jnp.abs(largest))
            return -most, most
        return jnp.minimum(smallest, 0), jnp.maximum(largest, 0)

    return _each(ranges, rules, first)


def next_ranges(
    ranges: Ranges, values: Trained, rules: Sequence[tuple[str, Any]]
) -> Ranges:
    """Returns the ranges after a step of the optimiser to `values`.

    A step takes at most half of the largest value away, so that it stays positive, and
    the smallest stays at or below 0.
    """

    def after(bounds: Range, settings: Settings, path: tuple[str, str]) -> Range:
        new = dict(values[path[0]][path[1]])
        new["largest"] = jnp.maximum(new["largest"], bounds[1] / 2)
        if "smallest" in new:
            new["smallest"] = jnp.minimum(new["smallest"], 0)
        return _pair(bounds, settings, new)

    return _each(ranges, rules, after)


def _pair(bounds: Range, settings: Settings, new: Mapping[str, jax.Array]) -> Range:
    largest = new["largest"]
    if settings["symmetric"]:
        return -largest, largest
    return new.get("smallest", bounds[0]), largest


def _each(
    ranges: Ranges,
    rules: Sequence[tuple[str, Any]],
    function: Callable[[Range, Settings, tuple[str, str]], Range],
) -> Ranges:
    """Returns the ranges with `function` of those that are trained, and the rest.

    Its last argument is where `trained` has them: the keys of site and side.
    """
    new: Ranges = {}
    for name, sides in ranges.items():
        settings = settings_of(name, rules)
        if learns(settings):
            sides = {
                side: function(bounds, settings, (_key(name), side))
                for side, bounds in sides.items()
            }
        new[name] = sides
    return new
