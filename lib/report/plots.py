"""Size against accuracy, and training curves, as matplotlib figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from lib.report import formats, labels, style

COLUMNS = 4  # of small multiples
POINTS = 240  # a curve is drawn with at most this many


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of `(cost, gain)` points that no other point beats.

    A point is beaten by one that costs no more and gains no less, and differs in one
    of the two. Sorted by cost, so both rise; of equal points the first is returned.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


@style.styled()
def size_accuracy(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the size of files against their accuracy, with the Pareto front.

    Args:
      points: `{"name", "file_bytes", "accuracy", "packed"}` for each file: bytes on
        disk, fraction of the test split, and whether it is what to ship.
    """
    drawn = style.figure(7.5, 4.2)
    axes = drawn.add_subplot()
    xs = [max(p["file_bytes"], 1) for p in points]
    ys = [100 * p["accuracy"] for p in points]
    axes.set_xscale("log")
    spread = math.log10(max(xs) / min(xs)) or 1.0
    left, right = min(xs) / 10 ** (0.12 * spread), max(xs) * 10 ** (0.2 * spread)
    axes.set_xlim(left, right)
    room = max(max(ys) - min(ys), 0.5)
    axes.set_ylim(min(ys) - 0.3 * room, max(ys) + 0.3 * room)

    front = pareto(list(zip(xs, ys, strict=True)))
    line = [(xs[front[0]], ys[front[0]])]
    for i in front[1:]:
        line += [(xs[i], line[-1][1]), (xs[i], ys[i])]
    line.append((right, line[-1][1]))
    line_x, line_y = zip(*line, strict=True)
    axes.plot(line_x, line_y, color=style.ACCENT, lw=1.2, alpha=0.45)
    for i, point in enumerate(points):
        packed = point["packed"]
        axes.plot(
            xs[i],
            ys[i],
            marker="o",
            ms=8 if packed else 6,
            mfc=style.ACCENT if packed else style.PAPER,
            mec=style.ACCENT if packed or i in front else style.MUTED,
            mew=1.6,
            ls="none",
            clip_on=False,
            zorder=3,
        )
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    # Two decades have too few whole powers of ten to read sizes from.
    between = FuncFormatter(lambda x, _: _tick(x) if str(int(x))[0] in "25" else "")
    axes.xaxis.set_minor_formatter(between if spread < 2.2 else NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("file size on disk, logarithmic")
    axes.set_title("test accuracy, %", fontweight="normal", color=style.MUTED, size=8.5)
    _name_points(axes, xs, ys, points, line)
    return drawn


def _tick(size: float) -> str:
    """Returns a round size without the zeros after its point: "10 kB"."""
    number, unit = formats.size(round(size)).split(" ")
    return f"{float(number):g} {unit}"


def _name_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    points: Sequence[Mapping[str, Any]],
    line: Sequence[tuple[float, float]],
) -> None:
    """Labels each place once, with the names of all points that lie there."""
    places: dict[tuple, list[int]] = {}
    for i, point in enumerate(points):
        place = formats.size(point["file_bytes"]), formats.percent(point["accuracy"])
        places.setdefault(place, []).append(i)
    labels.place(
        axes,
        [xs[same[0]] for same in places.values()],
        [ys[same[0]] for same in places.values()],
        [
            f"{', '.join(points[i]['name'] for i in same)}\n{size}, {percent} %"
            for (size, percent), same in places.items()
        ],
        [any(points[i]["packed"] for i in same) for same in places.values()],
        line,
    )


def _thin(xs: Sequence[float], ys: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `POINTS` points, each the mean of its neighbours."""
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    parts = max(1, math.ceil(len(x) / POINTS))
    starts = np.arange(0, len(x), parts)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _series(records: Sequence[Mapping[str, Any]], word: str) -> dict[str, tuple]:
    """Returns `{name: (steps, values)}` of the metrics whose name ends with `word`.

    Values that are not finite are left out; terms of a sum (`a/loss`) as well.
    """
    found: dict[str, tuple[list, list]] = {}
    for record in records:
        for name, value in record.items():
            if not name.endswith(word) or "/" in name or not math.isfinite(value):
                continue
            steps, values = found.setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(value)
    return {name: _thin(*xy) for name, xy in sorted(found.items())}


def _curves(axes: Axes, series: Mapping[str, tuple], scale: float) -> None:
    colours = (style.BEFORE, style.ACCENT, style.SECOND)
    if len(series) == 1:
        colours = (style.ACCENT,)
    for i, (x, y) in enumerate(series.values()):
        marker = "o" if len(x) == 1 else None
        colour = colours[min(i, len(colours) - 1)]
        axes.plot(x, scale * y, color=colour, marker=marker, ms=4)


def _legend(axes: Axes, names: Sequence[str], top: bool) -> None:
    """Writes the names in their colours into a corner that the curves leave free."""
    colours = [line.get_color() for line in axes.get_lines()]
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        y = 0.97 - 0.11 * i if top else 0.04 + 0.11 * (len(names) - 1 - i)
        axes.text(
            0.98,
            y,
            name.replace("_", " "),
            # The paler curve's own colour would be too weak for letters.
            color=style.MUTED if colour == style.BEFORE else colour,
            ha="right",
            va="top" if top else "bottom",
            transform=axes.transAxes,
            size=8,
        )


@style.styled()
def training(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws loss (logarithmic) and accuracy against the step, one column a stage.

    Args:
      curves: stage -> records, as `metrics.read` returns them.
    """
    stages = list(curves)
    titles = formats.short_paths(stages, 26)
    columns = min(COLUMNS, len(stages))
    blocks = math.ceil(len(stages) / columns)
    width = max(3.6, 2.35 * columns)
    drawn = style.figure(width, 3.7 * blocks)
    grid = drawn.subplots(2 * blocks, columns, squeeze=False)
    accuracies = [_series(curves[s], "accuracy") for s in stages]
    found = [y for series in accuracies for _, y in series.values()]
    low = 100 * min((float(np.percentile(y, 4)) for y in found), default=0)
    high = 100 * max((float(y.max()) for y in found), default=1)
    margin = 0.08 * max(high - low, 1)
    for i in range(blocks * columns):
        block, column = divmod(i, columns)
        loss, accuracy = grid[2 * block][column], grid[2 * block + 1][column]
        if i >= len(stages):
            loss.set_axis_off()
            accuracy.set_axis_off()
            continue
        losses = _series(curves[stages[i]], "loss")
        _curves(loss, losses, 1)
        _curves(accuracy, accuracies[i], 100)
        if losses and all((y > 0).all() for _, y in losses.values()):
            loss.set_yscale("log")
            loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
            loss.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            loss.yaxis.set_minor_locator(NullLocator())
        accuracy.set_ylim(low - margin, high + margin)
        # The empty line keeps blocks apart.
        loss.set_title("\n" * (block > 0) + titles[i], pad=8)
        loss.tick_params(labelbottom=False)
        accuracy.set_xlabel("step")
        for axes in (loss, accuracy):
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        accuracy.yaxis.set_major_locator(MaxNLocator(4))
        if column == 0:
            loss.set_ylabel("loss")
            accuracy.set_ylabel("accuracy, %")
        else:
            accuracy.tick_params(labelleft=False)
        if i == 0:
            _legend(loss, list(losses), top=True)
            _legend(accuracy, list(accuracies[i]), top=False)
    return drawn
