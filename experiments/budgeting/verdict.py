"""Whether a budget was met, and else which point is nearest and why, in words."""

from collections.abc import Mapping
from typing import Any

from experiments.budgeting import ladder, options
from lib.report import progress, rows


def keeps(one: Mapping[str, Any], settings: Any) -> bool:
    """Returns whether an attempt loses no more than it may, to the last digit."""
    return one["points"] <= settings["points"] + 1e-9


def slow(one: Mapping[str, Any], settings: Any) -> bool:
    """Returns whether an attempt takes longer than it may, where there is a limit."""
    limit = settings["milliseconds"]
    return bool(limit) and one["latency_ms"]["median"] > limit


def long(one: Mapping[str, Any], settings: Any) -> bool:
    """Returns whether a file is larger than it may be, where there is a limit."""
    return bool(settings["bytes"]) and one["bytes"] > settings["bytes"]


def meets(one: Mapping[str, Any], settings: Any) -> bool:
    """Returns whether an attempt keeps all limits."""
    return keeps(one, settings) and not slow(one, settings) and not long(one, settings)


def excess(one: Mapping[str, Any], settings: Any) -> float:
    """Returns an attempt as a multiple of the limit that it is worst at."""
    found = []
    if settings["bytes"]:
        found.append(one["bytes"] / settings["bytes"])
    if settings["milliseconds"]:
        found.append(one["latency_ms"]["median"] / settings["milliseconds"])
    return max(found)


def best(tried: list[dict[str, Any]], settings: Any) -> int:
    """Returns the place of the attempt that meets the budget, or of the nearest.

    The nearest is the one of the least excess that loses no more than it may; where
    none is, the one that loses least.
    """
    keep = [i for i, one in enumerate(tried) if keeps(one, settings)]
    if keep:
        return min(keep, key=lambda i: excess(tried[i], settings))
    return min(range(len(tried)), key=lambda i: (tried[i]["points"], i))


def lost(points: float) -> str:
    """Returns points lost, or gained where they are below 0, in words."""
    return f"{abs(points):.2f} points {'gained' if points < 0 else 'lost'}"


def told(one: Mapping[str, Any]) -> str:
    """Returns what was measured of an attempt in words."""
    parts = [f"{one['bytes']:,} bytes", lost(one["points"])]
    if one["latency_ms"]:
        parts.insert(0, ladder.told(one["latency_ms"]))
    return ", ".join(parts)


def limits(settings: Any) -> str:
    """Returns the limits in words."""
    parts = [f"{settings['points']:g} points"]
    if settings["bytes"]:
        parts.insert(0, f"{settings['bytes']:,} bytes")
    if settings["milliseconds"]:
        parts.insert(0, f"{settings['milliseconds']:g} ms")
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(result: Mapping[str, Any]) -> str:
    """Returns whether the budget was met, and else what is nearest, in a sentence."""
    settings = result["config"]["budget"]
    one = result["tried"][result["chosen"]]
    found = f"{told(one)} in validation"
    if result["met"]:
        return f"met: {found}, of at most {limits(settings)}{_close(one, settings)}"
    why = "".join(f"{reason}; " for reason in _reasons(result, settings))
    close = _close(one, settings)
    return (
        f"not met, at most {limits(settings)}: {why}the nearest point is {found}{close}"
    )


def _close(one: Mapping[str, Any], settings: Any) -> str:
    """Returns a warning where the times are on both sides of their limit, or ""."""
    limit, times = settings["milliseconds"], one["latency_ms"]
    if not limit or not times["low"] <= limit <= times["high"]:
        return ""
    return "; its times are on both sides of the limit: measure again when it is quiet"


def _reasons(result: Mapping[str, Any], settings: Any) -> list[str]:
    """Returns why no attempt met the budget."""
    found = []
    if result["ladder"] and settings["milliseconds"]:
        most = result["ladder"][-1]
        times, share = most["latency_ms"], 100 * most["channels"]
        if times["median"] > settings["milliseconds"]:
            found.append(
                f"even with {share:g} % of channels cut it takes {ladder.told(times)}"
            )
    smallest = result["smallest"]
    if smallest is not None and smallest > settings["bytes"]:
        found.append(f"even the smallest choice takes about {smallest:,} bytes")
    fits = [
        t for t in result["tried"] if not long(t, settings) and not slow(t, settings)
    ]
    if fits:
        least = min(t["points"] for t in fits)
        found.append(f"the best of what fits has {lost(least)}")
    return found


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the choice layer by layer, and the verdict."""
    one = result["tried"][result["chosen"]]
    if result["ladder"]:
        progress.say(f"{100 * one['channels']:g} % of channels cut")
    if one["layers"]:
        progress.say(rows.text(_table(one["layers"])))
    progress.say(sentence(result))
    dense, small = (result["test"][name] for name in ("dense", "chosen"))
    progress.say(
        f"test accuracy: {100 * dense:.2f} % dense, {100 * small:.2f} % at "
        f"{one['bytes']:,} of {result['dense']['bytes']:,} bytes"
    )
    return result


def _table(layers: list[dict[str, Any]]) -> list[list[str]]:
    """Returns a row a layer and a column for each strength that any of them has."""
    names = [name for name in options.CHAIN if any(name in one for one in layers)]
    lines = [["layer", *names]]
    for one in layers:
        own = [f"{one[name]:g}" if name in one else "-" for name in names]
        lines.append([one["path"], *own])
    return lines
