"""The speed verdict: what became faster than floats in the same runtime, and what not.

A file is compared only with the file of floats that the same runtime ran in the same
process: how much faster one runtime is than another says nothing of compression.
"""

from collections.abc import Mapping
from typing import Any

from lib.report import formats


def verdicts(
    entries: Mapping[str, Mapping[str, Any]], against: Mapping[str, str]
) -> list[str]:
    """Returns a sentence for each artifact and number of threads.

    Args:
      entries: name -> artifact of `result.json`, with `runtime`, `bytes`, `times_ms`
        and the counts of its contractions.
      against: name -> the artifact of floats that it is compared with; "" for none.
    """
    found = []
    for name, entry in entries.items():
        other = entries.get(against.get(name, ""))
        if other is None or not against[name]:
            continue
        threads = list(dict.fromkeys(row["threads"] for row in entry["times_ms"]))
        found += [sentence(name, entry, against[name], other, n) for n in threads]
    return found


def sentence(
    name: str,
    entry: Mapping[str, Any],
    base: str,
    other: Mapping[str, Any],
    threads: int,
) -> str:
    """Returns the verdict on an artifact at one number of threads."""
    words, gains = [], []
    for row, whole in zip(entry["times_ms"], other["times_ms"], strict=True):
        if row["threads"] == threads:
            word, gain = _compared(row, whole)
            words.append(f"{word} at batch {row['batch']}")
            gains.append(gain)
    plural = "s" if threads > 1 else ""
    ratio = other["bytes"] / entry["bytes"]
    how = "smaller" if ratio >= 1 else "larger"
    text = (
        f"{name} against {base} in {entry['runtime']}, {threads} thread{plural}: "
        f"{', '.join(words)}; file {formats.times(max(ratio, 1 / ratio))} {how}"
    )
    return text if all(gains) else f"{text} ({_why(entry, any(gains))})"


def _compared(row: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, bool]:
    """Returns how a time compares, and whether it is a gain beyond the spread."""
    ratio = formats.times(whole["median"] / row["median"])
    if row["high"] < whole["low"]:
        return f"{ratio} as fast", True
    if row["low"] > whole["high"]:
        return f"slower, {ratio} the speed", False
    return f"no gain here ({ratio})", False


def _why(entry: Mapping[str, Any], somewhere: bool) -> str:
    """Returns why a file is not faster everywhere."""
    integers, floats = entry["integer_contractions"], entry["float_contractions"]
    if not integers:
        return "its contractions run in float: only the file is smaller"
    if floats > integers:
        return f"{floats} of its {floats + integers} contractions run in float"
    if somewhere:
        return "small batches spend their time on calls and on rounding, not products"
    return (
        f"its {integers} integer contractions are too small here, or this runtime's "
        "integer kernels no faster than its float ones"
    )
