"""How numbers are written for people. A missing number is "-"."""

import os
from collections.abc import Sequence

MISSING = "-"


def count(n: int | None) -> str:
    """Returns `n` in at most 6 characters: 842, 9.61k, 266k, 1.07M."""
    return _short(n, ("", "k", "M", "G", "T", "P"))


def size(n: int | None) -> str:
    """Returns `n` bytes with 3 digits and a decimal unit: 842 B, 19.4 kB, 1.07 MB."""
    return _short(n, (" B", " kB", " MB", " GB", " TB", " PB"))


def _short(n: int | None, units: tuple[str, ...]) -> str:
    if n is None:
        return MISSING
    value, unit = float(n), 0
    # 999.5 and above would be written with 4 digits, so they take the next unit.
    while value >= (1000 if unit == 0 else 999.5) and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 else _decimals(value)
    return f"{value:.{digits}f}{units[unit]}"


def _decimals(value: float) -> int:
    """Returns the decimals with which `value` has 3 digits."""
    return 2 if value < 9.995 else 1 if value < 99.95 else 0


def exact(n: int | None) -> str:
    """Returns all digits of `n`, in groups of three."""
    return MISSING if n is None else f"{n:,}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Returns a fraction in percent, without the sign for it."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}"


def points(difference: float | None) -> str:
    """Returns a difference in percentage points with its sign; never -0.00."""
    if difference is None:
        return MISSING
    return f"{round(difference, 2) + 0.0:+.2f}"


def times(ratio: float | None) -> str:
    """Returns a ratio with 3 digits: 0.98x, 55.1x, 1204x."""
    return MISSING if ratio is None else f"{ratio:.{_decimals(ratio)}f}x"


def milliseconds(value: float | None) -> str:
    """Returns milliseconds with 3 digits and at most 3 decimals."""
    if value is None:
        return MISSING
    return f"{value:.3f}" if value < 0.9995 else f"{value:.{_decimals(value)}f}"


def duration(seconds: float) -> str:
    """Returns a time for people: 3.4 s, 2:05, 1:02:05."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def scalar(value: float) -> str:
    """Returns a loss or other metric with 4 digits."""
    return f"{value:.4g}"


def short_paths(paths: Sequence[str], most: int) -> list[str]:
    """Returns `a/b/kernel` paths in at most `most` characters each.

    If one is too long, all lose the parents that they share; one still too long loses
    its middle, since the block before and the weight behind tell layers apart.
    """
    if max(map(len, paths), default=0) > most:
        shared = os.path.commonprefix([path.split("/")[:-1] for path in paths])
        paths = ["/".join(path.split("/")[len(shared) :]) for path in paths]
    head = most // 3
    return [
        path if len(path) <= most else f"{path[:head]}\u2026{path[head + 1 - most :]}"
        for path in paths
    ]
