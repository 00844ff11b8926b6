"""A search as matplotlib figures: history, front, importance, parallel coordinates."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.report import formats, style

PERCENT = "validation_accuracy"  # the one objective that is shown in per cent
LABEL = 26  # letters of a value on an axis, at most
Trials = Sequence[Mapping[str, Any]]


def words(objective: str) -> str:
    """Returns an objective as the page calls it."""
    return objective.replace("_", " ") + (", %" if objective == PERCENT else "")


def shown(objective: str, values: Any) -> np.ndarray:
    """Returns values of an objective as they are shown."""
    return np.asarray(values, float) * (100 if objective == PERCENT else 1)


def complete(trials: Trials) -> list[Mapping[str, Any]]:
    """Returns the trials that have values."""
    return [t for t in trials if t["values"] is not None]


@style.styled()
def history(trials: Trials, objectives: Sequence[Sequence[str]]) -> Figure:
    """Draws each objective against the trial's number, with the best so far.

    Args:
      trials: `{"number", "values"}`, values None where a trial has none.
      objectives: pairs (name, "maximize" or "minimize").
    """
    drawn = style.figure(7.5, 2.3 * len(objectives))
    rows = drawn.subplots(len(objectives), 1, squeeze=False)[:, 0]
    done = complete(trials)
    numbers = [t["number"] for t in done]
    for i, ((name, way), axes) in enumerate(zip(objectives, rows, strict=True)):
        values = shown(name, [t["values"][i] for t in done])
        so_far = np.maximum if way == "maximize" else np.minimum
        best = so_far.accumulate(values)
        axes.plot(numbers, values, "o", ms=4, color=style.BEFORE)
        axes.plot(numbers, best, color=style.ACCENT, drawstyle="steps-post")
        _quiet(axes, f"{words(name)}: each trial, and the best so far")
    rows[-1].set_xlabel("trial")
    for axes in rows:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return drawn


@style.styled()
def front(
    trials: Trials, objectives: Sequence[Sequence[str]], best: Sequence[int]
) -> Figure:
    """Draws the first two objectives against each other, with the front.

    Args:
      trials: as for `history`.
      objectives: two or more.
      best: numbers of the trials that no other beats, in all objectives.
    """
    drawn = style.figure(7.5, 4.0)
    axes = drawn.add_subplot()
    done = complete(trials)
    (gain, _), (cost, _) = objectives[:2]
    xs = shown(cost, [t["values"][1] for t in done])
    ys = shown(gain, [t["values"][0] for t in done])
    on = np.array([t["number"] in best for t in done])
    axes.plot(xs[~on], ys[~on], "o", ms=5, color=style.BEFORE)
    order = np.argsort(xs[on], kind="stable")
    joined = "-" if len(objectives) == 2 else ""
    axes.plot(
        xs[on][order],
        ys[on][order],
        f"o{joined}",
        ms=6,
        color=style.ACCENT,
        drawstyle="steps-post",
    )
    if (xs > 0).all() and xs.max() > 20 * xs.min():
        axes.set_xscale("log")
    if cost == "file_bytes":
        tick = FuncFormatter(lambda x, _: formats.size(max(1, round(x))))
        axes.xaxis.set_major_formatter(tick)
    axes.set_xlabel(words(cost))
    _quiet(axes, words(gain) + _zoomed(axes, ys, objectives[0][1]))
    return drawn


def _zoomed(axes: Axes, ys: np.ndarray, way: str) -> str:
    """Leaves a few values that are far worse out of the frame; says how many."""
    cost = -ys if way == "maximize" else ys
    usual = np.percentile(cost, 90)
    room = usual - cost.min()
    out = int((cost > usual + 2 * room).sum())
    if not room or not out:
        return ""
    low, high = cost.min() - 0.2 * room, usual + 0.5 * room
    axes.set_ylim(*((-high, -low) if way == "maximize" else (low, high)))
    hidden = int((cost > high).sum())
    return f" ({hidden} of {len(ys)} trials are far worse and out of the frame)"


@style.styled()
def importance(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws how much of each objective's variance each field explains.

    Args:
      shares: objective -> {field: share, 0 to 1}; none is empty.
    """
    most = max(len(of) for of in shares.values())
    drawn = style.figure(7.5, (0.6 + 0.32 * most) * len(shares))
    rows = drawn.subplots(len(shares), 1, squeeze=False)[:, 0]
    for (name, of), axes in zip(shares.items(), rows, strict=True):
        fields = sorted(of, key=of.get)
        axes.barh(fields, [100 * of[f] for f in fields], color=style.ACCENT, height=0.6)
        axes.set_xlim(0, 100)
        axes.set_title(f"% of the variance of {words(name).removesuffix(', %')}")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    return drawn


def places(
    column: Sequence[Any], names: Mapping[Any, str] | None = None
) -> tuple[list[float], list[tuple[float, str]]]:
    """Returns where on an axis from 0 to 1 the values of a field lie, and its ticks.

    Numbers that are more than a decade apart lie on a logarithmic axis; all else has
    one place for each value.

    Args:
      column: of each trial.
      names: of values that are not shown as they are.
    """
    numbers = all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in column
    )
    kinds = sorted(set(column), key=lambda v: v if numbers else _natural(str(v)))
    if numbers and len(kinds) > 6:
        values = np.asarray(column, float)
        scale = values.min() > 0 and values.max() > 10 * values.min()
        at = np.log(values) if scale else values
        at = (at - at.min()) / (at.max() - at.min())
        ends = [(0.0, f"{values.min():.3g}"), (1.0, f"{values.max():.3g}")]
        return at.tolist(), ends
    step = 1 / max(1, len(kinds) - 1)
    where = {v: i * step for i, v in enumerate(kinds)}
    named = {v: f"{v:.3g}" if numbers else str(v) for v in kinds} | dict(names or {})
    told = [named[v] for v in kinds]
    told = [t if len(t) <= LABEL else t[: LABEL - 1] + "\u2026" for t in told]
    return [where[v] for v in column], list(zip(where.values(), told, strict=True))


def _natural(text: str) -> list[Any]:
    """Returns what sorts text by the numbers in it: (32, 8) before (128, 2)."""
    parts = re.split(r"(\d+\.?\d*)", text)
    return [float(x) if i % 2 else x for i, x in enumerate(parts)]


def _names(trials: Trials, field: str) -> dict[Any, str]:
    """Returns names for values that several fields have together: that of the first.

    {} where two values are the same there, or for a single field.
    """
    first, *others = field.split(" + ")
    named = {t["params"][field]: str(t["settings"][first]) for t in trials}
    return named if others and len({*named.values()}) == len(named) else {}


@style.styled()
def parallel(
    trials: Trials, fields: Sequence[str], objectives: Sequence[Sequence[str]]
) -> Figure:
    """Draws each trial as a line over one axis a field, and the first objective.

    The best tenth by that objective is drawn in colour.
    """
    done = complete(trials)
    (name, way), *_ = objectives
    values = shown(name, [t["values"][0] for t in done])
    columns = [places([t["params"][f] for t in done], _names(done, f)) for f in fields]
    span = values.max() - values.min() or 1.0
    ends = [(0.0, f"{values.min():.4g}"), (1.0, f"{values.max():.4g}")]
    columns.append((((values - values.min()) / span).tolist(), ends))
    order = np.argsort(values if way == "maximize" else -values, kind="stable")
    top = set(order[-max(1, len(done) // 10) :].tolist())
    drawn = style.figure(max(5.0, 1.7 * len(columns)), 3.6)
    axes = drawn.add_subplot()
    lines = np.array([at for at, _ in columns])
    for i in order:
        best = int(i) in top
        axes.plot(
            range(len(columns)),
            lines[:, i],
            color=style.ACCENT if best else style.BEFORE,
            lw=1.8 if best else 0.9,
            alpha=1.0 if best else 0.7,
        )
    for x, (_, ticks) in enumerate(columns):
        axes.axvline(x, color=style.FAINT, lw=0.8, zorder=0)
        for y, text in ticks:
            axes.annotate(
                text,
                (x, y),
                (4, 3),
                textcoords="offset points",
                size=7,
                color=style.MUTED,
                bbox=dict(fc=style.PAPER, ec="none", pad=0.6, alpha=0.8),
            )
    style.bare(axes)
    axes.spines["bottom"].set_visible(False)
    axes.set_ylim(-0.05, 1.1)
    axes.set_xlim(-0.15, len(columns) - 0.4)
    names = [f.replace(" + ", "\n") for f in fields] + [words(name)]
    axes.set_xticks(range(len(columns)), names)
    return drawn


def _quiet(axes: Axes, title: str) -> None:
    axes.set_title(title, fontweight="normal", color=style.MUTED, size=8.5)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
