"""The page of an experiment that keeps more and more features of a table."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import files
from lib.report import data, formats, html, sections, style


@style.styled()
def picture(rows: Sequence[Mapping[str, Any]], chosen: int) -> Figure:
    """Draws validation accuracy against the number of features.

    Args:
      rows: `{"keep", "validation": one accuracy a seed}`; the line joins medians, the
        band reaches from the lowest to the highest.
      chosen: the number that was chosen, drawn as a filled point.
    """
    rows = sorted(rows, key=lambda row: row["keep"])
    xs = [row["keep"] for row in rows]
    low, middle, high = (
        [100 * f(row["validation"]) for row in rows] for f in (min, np.median, max)
    )
    drawn = style.figure(7.5, 3.6)
    axes = drawn.add_subplot()
    axes.fill_between(xs, low, high, color=style.BEFORE, alpha=0.3, lw=0)
    axes.plot(xs, middle, color=style.ACCENT)
    for x, y in zip(xs, middle, strict=True):
        fill = style.ACCENT if x == chosen else style.PAPER
        axes.plot(x, y, "o", ms=7, mfc=fill, mec=style.ACCENT, mew=1.6)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xticks(xs)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("features that are kept")
    axes.set_title(
        "validation accuracy, %", fontweight="normal", color=style.MUTED, size=8.5
    )
    return drawn


def render(result: Mapping[str, Any]) -> str:
    """Returns the page of what `experiments/feature_curve.py` found."""
    rows, chosen = result["rows"], result["chosen"]
    seeds = len(rows[0]["validation"])
    svg = style.inline(
        picture(rows, chosen),
        "curve",
        "Features kept against validation accuracy: "
        + ", ".join(
            f"{r['keep']} {formats.percent(np.median(r['validation']))} %" for r in rows
        ),
    )
    lines = [
        sections.line(
            str(row["keep"]),
            [
                sections.cell(formats.percent(f(row["validation"])))
                for f in (np.median, min, max)
            ]
            + [
                sections.cell(formats.exact(int(np.median(row["bytes"])))),
                sections.cell(_test(result, row["keep"])),
            ],
            "packed" if row["keep"] == chosen else "",
        )
        for row in rows
    ]
    heads = ["Features", "Validation, %", "Lowest", "Highest", "File, bytes", "Test, %"]
    note = (
        f"Medians of {seeds} seed{'s' * (seeds > 1)}; the band is from the lowest to "
        f"the highest. {chosen} is chosen: the best on the "
        f"{result['examples']['validation']:,} validation examples with the fewest "
        f"features. The test split ({result['examples']['test']:,} examples) was "
        "measured after that, for it and for the largest number."
    )
    body = html.figure(svg, narrow=True) + sections.table(heads, lines)
    title = escape(result["experiment"])
    sentence = f"{chosen} features validate best."
    return html.shell(
        title,
        [
            f'<header>\n<p class="eyebrow">Pare report</p>\n<h1>{title}</h1>\n'
            f'<p class="verdict">{escape(sentence)}</p>\n</header>\n',
            sections.section("Accuracy by the number of features", note, body),
            data.section(result),
            sections.settings(result),
        ],
    )


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Writes `report.html` and its plot as `features.svg`; returns the page's path."""
    path = Path(workdir) / html.NAME
    style.save(
        picture(result["rows"], result["chosen"]), path.with_name("features.svg")
    )
    files.write_text(path, render(result))
    return path


def _test(result: Mapping[str, Any], keep: int) -> str:
    found = result["test"].get(str(keep))
    return formats.percent(float(np.median(found))) if found else formats.MISSING
