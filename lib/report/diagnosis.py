"""The page of a diagnosis: verdict, learning curves, bias and variance."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lib import files
from lib.report import formats, html, sections, style

FOOTER = (
    "Made by Pare. Every number was measured on training and validation examples; the "
    "test split was not touched."
)


@style.styled()
def curves(result: Mapping[str, Any]) -> Figure:
    """Draws training and held-out error over data size and over model size."""
    drawn = style.figure(7.5, 3.4)
    for i, (key, words) in enumerate(
        (("by_data", "training examples"), ("by_model", "parameters"))
    ):
        axes = drawn.add_subplot(1, 2, i + 1)
        points = sorted(result[key], key=lambda p: p["size"])
        xs = [p["size"] for p in points]
        for name, colour in (
            ("train_accuracy", style.BEFORE),
            ("accuracy", style.ACCENT),
        ):
            errors = [100 * (1 - np.asarray(p[name])) for p in points]
            low, middle, high = ([f(e) for e in errors] for f in (min, np.mean, max))
            axes.fill_between(xs, low, high, color=colour, alpha=0.25, lw=0)
            axes.plot(xs, middle, color=colour, marker="o", ms=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set_xticks(xs)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", rotation=35)
        axes.set_xlabel(words)
        _quiet(axes)
        if not i:
            axes.set_title("error, %", fontweight="normal", color=style.MUTED, size=8.5)
            _names(axes, (("held out", style.ACCENT), ("training", style.MUTED)))
    return drawn


@style.styled()
def parts(ladder: Mapping[str, Any]) -> Figure:
    """Draws error, bias and variance along one ladder, of both losses."""
    drawn = style.figure(7.5, 3.0)
    rungs = ladder["rungs"]
    names = [value_text(rung["value"]) for rung in rungs]
    for i, (loss, words) in enumerate(
        (("squared", "squared loss"), ("zero_one", "0-1 loss, %"))
    ):
        axes = drawn.add_subplot(1, 2, i + 1)
        scale = 100 if loss == "zero_one" else 1
        for part, colour in (
            ("error", style.INK),
            ("bias", style.ACCENT),
            ("variance", style.SECOND),
        ):
            ys = [scale * rung[loss][part] for rung in rungs]
            axes.plot(range(len(ys)), ys, color=colour, marker="o", ms=4)
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", rotation=35)
        axes.set_xlabel(ladder["field"])
        axes.set_title(words, fontweight="normal", color=style.MUTED, size=8.5)
        _quiet(axes)
        if not i:
            colours = (style.INK, style.ACCENT, style.SECOND)
            _names(axes, zip(("error", "bias", "variance"), colours, strict=True))
    return drawn


def value_text(value: Any) -> str:
    """Returns a setting's value in a few letters: "64-32", "prune, quantize"."""
    if not isinstance(value, list | tuple):
        return str(value)
    if not value:
        return "none"
    numbers = all(isinstance(v, int | float) for v in value)
    return ("-" if numbers else ", ").join(str(v) for v in value)


def _quiet(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _names(axes: Axes, named: Any) -> None:
    for i, (name, colour) in enumerate(named):
        where = dict(transform=axes.transAxes, ha="right", va="top", size=8)
        axes.text(0.98, 0.97 - 0.09 * i, name, color=colour, **where)


def render(result: Mapping[str, Any]) -> str:
    """Returns the page of what `experiments/diagnose.py` found."""
    title = escape(result["experiment"])
    stage = result["config"]["diagnose"]["stage"]
    sentence = f"{stage}: {result['verdict']}."
    said = "".join(f"<li>{escape(line)}</li>\n" for line in result["evidence"])
    body = f"<ul>\n{said}</ul>\n"
    if result["remedies"]:
        lines = [
            sections.line(one["override"], [sections.cell(one["why"])], mono=True)
            for one in result["remedies"]
        ]
        body += sections.table(["Try", "What it does"], lines, "words")
    counts = result["examples"]
    seeds = len(result["config"]["diagnose"]["seeds"])
    note = (
        f"Means of {seeds} seed{'s' * (seeds > 1)}, bands from the lowest to the "
        f"highest; {counts['train']:,} training and {counts['validation']:,} "
        "validation examples."
    )
    alt = "Training and held-out error over training examples and over parameters"
    drawn = html.figure(style.inline(curves(result), "curves", alt))
    drawn += _points("Training examples", result["by_data"])
    drawn += _points("Parameters", result["by_model"])
    return html.shell(
        title,
        [
            f'<header>\n<p class="eyebrow">Pare report</p>\n<h1>{title}</h1>\n'
            f'<p class="verdict">{escape(sentence)}</p>\n</header>\n',
            sections.section("Why, and what to try", "", body),
            sections.section("Learning curves", note, drawn),
            *(_ladder(i, one, result) for i, one in enumerate(result["ladders"])),
            sections.settings(result),
        ],
        footer=FOOTER,
    )


def _points(head: str, points: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for point in points:
        train, held_out = (np.mean(point[k]) for k in ("train_accuracy", "accuracy"))
        losses = (np.mean(point[k]) for k in ("train_loss", "loss"))
        lines.append(
            sections.line(
                formats.exact(point["size"]),
                [
                    sections.cell(formats.percent(float(train))),
                    sections.cell(formats.percent(float(held_out))),
                    sections.cell(formats.points(100 * float(held_out - train))),
                    *(sections.cell(formats.scalar(float(x))) for x in losses),
                ],
            )
        )
    heads = [head, "Training, %", "Held out, %", "Gap, points"]
    return sections.table([*heads, "Training loss", "Held-out loss"], lines)


def _ladder(i: int, ladder: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    field = ladder["field"]
    alt = f"Error, bias and variance of both losses along {field}"
    body = html.figure(style.inline(parts(ladder), f"ladder{i}", alt))
    lines = []
    for rung in ladder["rungs"]:
        squared, zero_one = rung["squared"], rung["zero_one"]
        cells = [formats.scalar(squared[k]) for k in ("error", "bias", "variance")]
        cells += [
            formats.percent(zero_one[k])
            for k in ("error", "bias", "unbiased", "biased")
        ]
        name = value_text(rung["value"])
        lines.append(sections.line(name, [sections.cell(c) for c in cells]))
    heads = ["Value", "Squared", "Bias", "Variance", "Wrong, %", "Bias, %"]
    heads += ["Variance that harms, %", "that helps, %"]
    models = result["config"]["diagnose"]["bootstraps"]
    note = (
        f"{models} models of each value, each trained on a bootstrap of its own and "
        "judged on the validation examples; labels count as free of noise, so what "
        "noise there is counts as bias."
    )
    return sections.section(
        f"Bias and variance along {field}", note, body + sections.table(heads, lines)
    )


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Writes `report.html`; returns its path."""
    path = Path(workdir) / html.NAME
    files.write_text(path, render(result))
    return path
