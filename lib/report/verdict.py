"""One sentence in plain words, made from the numbers."""

from collections.abc import Mapping
from typing import Any

from lib.report import formats, results


def subject(result: Mapping[str, Any]) -> tuple[results.Row, results.Row]:
    """Returns the first stage and what it is judged against.

    That is the first artifact, or the last stage of a run that packed nothing.
    """
    rows = results.rows(result)
    packed = [row for row in rows if row.kind == "artifact"]
    return rows[0], (packed or rows)[0 if packed else -1]


def sentence(result: Mapping[str, Any]) -> str:
    """Returns what was gained and what was lost, measured against the first stage."""
    first, row = subject(result)
    if first is row or first == row:
        return f"{_cap(first.name)} is the only stage: there is nothing to compare."
    words = [_size(first, row)]
    accuracy = _accuracy(first, row)
    if accuracy:
        words.append(f"and {accuracy}")
    text = f"{_name(row)} is {' '.join(words)}"
    speed = _speed(first, row)
    return f"{text}; {speed}." if speed else f"{text}."


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _name(row: results.Row) -> str:
    if row.kind == "stage":
        return f"The file of {row.name}"
    return f"The {row.name} file"


def _size(first: results.Row, row: results.Row) -> str:
    ratio = row.ratio["file_bytes"]
    both = f"{formats.size(row.file_bytes)} against {formats.size(first.file_bytes)}"
    if ratio is None:
        return f"{formats.size(row.file_bytes)} long"
    if ratio >= 1.005:
        return f"{formats.times(ratio)} smaller than {first.name}'s ({both})"
    if ratio > 0.995:
        return f"as large as {first.name}'s ({both})"
    return f"{formats.times(1 / ratio)} larger than {first.name}'s ({both})"


def _accuracy(first: results.Row, row: results.Row) -> str | None:
    points = row.ratio["accuracy"]
    if points is None:
        return None
    both = f"{formats.percent(row.accuracy)} % against "
    both += f"{formats.percent(first.accuracy)} %"
    if abs(points) < 0.005:
        return f"just as accurate ({formats.percent(row.accuracy)} %)"
    how = "more" if points > 0 else "less"
    return f"{abs(points):.2f} points {how} accurate ({both})"


def _speed(first: results.Row, row: results.Row) -> str | None:
    ratio = row.ratio["latency"]
    if ratio is None:
        return None
    told = formats.times(ratio)
    if row.latency["high"] < first.latency["low"]:
        return f"on this machine it is {told} as fast"
    if row.latency["low"] > first.latency["high"]:
        return f"on this machine it is slower ({told} the speed)"
    return f"on this machine it is not measurably faster ({told})"
