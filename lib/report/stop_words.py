"""The page of an experiment that trains with and without stop words."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import files
from lib.report import formats, html, sections, style

ALL = "all words"
# What was counted in the training texts, as `lib.data.text.texts` says it -> as here.
COUNTED = {
    "stop words taken out in train": "Words taken out",
    "tokens in train": "Tokens",
    "places of padding in train": "Padding",
    "unknown tokens in train": "Unknown tokens",
    "texts that are empty in train": "Texts left empty",
    "texts that were cut in train": "Texts cut",
    "tokens of the vocabulary": "Vocabulary",
}


def name(row: Mapping[str, Any]) -> str:
    """Returns what a row is called."""
    return f"without {row['list']}" if row["list"] else ALL


def gained(result: Mapping[str, Any], row: Mapping[str, Any]) -> list[float]:
    """Returns the points of test accuracy against all words, seed by seed."""
    whole = result["rows"][0]["test"]
    return [100 * (a - b) for a, b in zip(row["test"], whole, strict=True)]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Returns what each list cost or gained, a sentence a list."""
    whole, *others = result["rows"]
    return [_sentence(result, whole, row) for row in others]


def _sentence(
    result: Mapping[str, Any], whole: Mapping[str, Any], row: Mapping[str, Any]
) -> str:
    points = gained(result, row)
    middle = float(np.median(points))
    if round(middle, 2):
        verb = "gains" if middle > 0 else "costs"
        what = f"{verb} {abs(middle):.2f} points of test accuracy"
    else:
        what = "leaves the test accuracy as it is"
    seeds = len(points)
    spread = f", {min(points):+.2f} to {max(points):+.2f}" if seeds > 1 else ""
    before, after = (r["counts"].get("tokens in train", 0) for r in (whole, row))
    fewer = (
        f"{100 * (1 - after / before):.0f} % fewer tokens" if before else "no tokens"
    )
    return (
        f"Taking out the {row['words']:,} stop words of {row['list']} {what} (median "
        f"of {seeds} seed{'s' * (seeds > 1)}{spread}); the training texts have {fewer}."
    )


@style.styled()
def picture(result: Mapping[str, Any]) -> Figure:
    """Draws the test accuracy of every run, a line a list; a bar marks the median."""
    rows = result["rows"]
    drawn = style.figure(7.5, 0.9 + 0.45 * len(rows))
    axes = drawn.add_subplot()
    for i, row in enumerate(rows):
        colour = style.ACCENT if row["list"] else style.MUTED
        found = [100 * a for a in row["test"]]
        axes.plot(found, [i] * len(found), "o", ms=6, mfc=style.PAPER, mec=colour)
        axes.plot(np.median(found), i, "|", ms=18, mew=2, color=colour)
    axes.set_yticks(range(len(rows)), formats.short_paths([name(r) for r in rows], 40))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_title("test accuracy, %", fontweight="normal", color=style.MUTED, size=8.5)
    return drawn


def render(result: Mapping[str, Any]) -> str:
    """Returns the page of what `experiments/stop_words.py` found."""
    rows = result["rows"]
    seeds = len(rows[0]["test"])
    alt = "Test accuracy of every run: " + ", ".join(
        f"{name(row)} {formats.percent(float(np.median(row['test'])))} %"
        for row in rows
    )
    svg = style.inline(picture(result), "stop_words", alt)
    lines = [sections.line(name(row), _cells(result, row)) for row in rows]
    heads = ["Texts", "Validation, %", "Test, %", "Lowest", "Highest"]
    heads += ["Points, by seed", "File, bytes"]
    (best,) = (row for row in rows if row["list"] == result["chosen"])
    note = (
        f"Medians of {seeds} seed{'s' * (seeds > 1)}; lowest and highest are of the "
        f"test split ({result['examples']['test']:,} examples), which was measured "
        f"when all were trained. The {result['examples']['validation']:,} validation "
        f"examples choose: {name(best)}."
    )
    counted = [key for key in COUNTED if any(key in row["counts"] for row in rows)]
    counts = [
        sections.line(
            name(row),
            [sections.cell(formats.exact(row["counts"].get(k, 0))) for k in counted],
        )
        for row in rows
    ]
    title = escape(result["experiment"])
    verdict = " ".join(sentences(result))
    return html.shell(
        title,
        [
            f'<header>\n<p class="eyebrow">Pare report</p>\n<h1>{title}</h1>\n'
            f'<p class="verdict">{escape(verdict)}</p>\n</header>\n',
            sections.section(
                "What it cost or gained",
                note,
                html.figure(svg, narrow=True) + sections.table(heads, lines),
            ),
            sections.section(
                "What is left of the training texts",
                "",
                sections.table(["Texts", *(COUNTED[k] for k in counted)], counts),
            ),
            sections.settings(result),
        ],
    )


def _cells(result: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    points = gained(result, row)
    told = ", ".join(f"{p:+.2f}" for p in points) if row["list"] else formats.MISSING
    shown = [
        formats.percent(float(f(row[of])))
        for f, of in (
            (np.median, "validation"),
            (np.median, "test"),
            (min, "test"),
            (max, "test"),
        )
    ]
    size = formats.exact(int(np.median(row["bytes"])))
    return [sections.cell(text) for text in (*shown, told, size)]


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Writes `report.html` and its plot, `stop_words.svg`; returns the page's path."""
    path = Path(workdir) / html.NAME
    style.save(picture(result), path.with_name("stop_words.svg"))
    files.write_text(path, render(result))
    return path
