"""The page of a sensitivity: heat maps and curves, a layer a row."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lib import files
from lib.report import formats, html, sections, style

WORST = 10.0  # points lost at which a cell is fully coloured
MAPPED = LinearSegmentedColormap.from_list("lost", (style.PAPER, style.SECOND))
FOOTER = (
    "Made by Pare. Every accuracy was measured on validation examples; the test split "
    "was not touched."
)


@style.styled()
def heat(result: Mapping[str, Any]) -> Figure:
    """Draws points lost by layer and strength, a panel a technique.

    Args:
      result: as `experiments/sensitivity.py` writes it.
    """
    names = formats.short_paths([layer["path"] for layer in result["layers"]], 30)
    curves = result["curves"]
    drawn = style.figure(7.5, 1.3 + 0.34 * len(names))
    widths = [len(curve["strengths"]) for curve in curves.values()]
    grid = drawn.subplots(
        1, len(curves), squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for i, (axes, (technique, curve)) in enumerate(
        zip(grid[0], curves.items(), strict=True)
    ):
        lost = 100 * (result["base"]["accuracy"] - np.asarray(curve["accuracy"]))
        axes.imshow(
            np.clip(lost, 0, WORST), cmap=MAPPED, vmin=0, vmax=WORST, aspect="auto"
        )
        for (row, column), value in np.ndenumerate(lost):
            # On what is coloured strongly and on a dark page, letters stay readable.
            axes.text(
                *(column, row, _cell(-value)),
                ha="center",
                va="center",
                size=7,
                color="#1d2531",
            )
        axes.set_xticks(
            range(len(curve["strengths"])), [f"{s:g}" for s in curve["strengths"]]
        )
        axes.set_yticks(range(len(names)), names if not i else [""] * len(names))
        axes.set_title(technique, fontweight="normal", color=style.MUTED, size=8.5)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0)
        axes.tick_params(axis="x", labelsize=6.5)
    return drawn


def _cell(points: float) -> str:
    """Returns points in two figures, for which a narrow cell has room."""
    if abs(points) < 0.05:
        return "0"
    return f"{points:.0f}" if abs(points) >= 9.95 else f"{points:.1f}"


def render(result: Mapping[str, Any]) -> str:
    """Returns the page of what `experiments/sensitivity.py` found."""
    base, title = result["base"]["accuracy"], escape(result["experiment"])
    stage = result["config"]["stage"]
    low, where = _worst(result)
    sentence = (
        f"{stage} has {formats.percent(base)} % of {result['examples']:,} validation "
        f"examples right; {where} costs most, {100 * low:.1f} points."
    )
    note = (
        "Points of validation accuracy against the stage as it is, with one layer "
        f"compressed and all others left; full colour at {WORST:g} points lost. Rank "
        "is a share of a layer's smaller side, clusters are the values that its "
        "weights share. Nothing was fine-tuned."
    )
    alt = "Points of accuracy by layer and strength"
    body = html.figure(style.inline(heat(result), "heat", alt))
    parts = [
        f'<header>\n<p class="eyebrow">Pare report</p>\n<h1>{title}</h1>\n'
        f'<p class="verdict">{escape(sentence)}</p>\n</header>\n',
        sections.section("Layer by layer", note, body),
    ]
    for technique, curve in result["curves"].items():
        lines = [
            sections.line(
                layer["path"],
                [
                    sections.cell(formats.exact(layer["params"])),
                    *(sections.cell(formats.percent(a)) for a in found),
                ],
                mono=True,
            )
            for layer, found in zip(result["layers"], curve["accuracy"], strict=True)
        ]
        heads = ["Layer", "Parameters", *(f"{s:g}" for s in curve["strengths"])]
        table = sections.table(heads, lines)
        words = "Validation accuracy, %, by strength."
        parts.append(sections.section(technique.capitalize(), words, table))
    return html.shell(title, [*parts, sections.settings(result)], footer=FOOTER)


def _worst(result: Mapping[str, Any]) -> tuple[float, str]:
    """Returns the most that any cell lost, and which one it was."""
    cells = [
        (result["base"]["accuracy"] - accuracy, f"{technique} {strength:g} of {path}")
        for technique, curve in result["curves"].items()
        for path, found in zip(
            [layer["path"] for layer in result["layers"]],
            curve["accuracy"],
            strict=True,
        )
        for strength, accuracy in zip(curve["strengths"], found, strict=True)
    ]
    return max(cells)


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Writes `report.html` and its map, `sensitivity.svg`; returns the page's path."""
    path = Path(workdir) / html.NAME
    style.save(heat(result), path.with_name("sensitivity.svg"))
    files.write_text(path, render(result))
    return path
