"""`report.html`: one page with everything, that opens without a network or scripts."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lib import files
from lib.report import (
    cuts,
    data,
    formats,
    layer_plots,
    plots,
    results,
    runtimes,
    sections,
    style,
    verdict,
)

NAME = results.PAGE
FOOTER = (
    "Made by Pare. Every accuracy was measured on the checkpoint or artifact it stands "
    "beside, on the whole test split."
)
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
Layers = Sequence[Mapping[str, Any]]
Coverage = Mapping[str, Sequence[Mapping[str, Any]]]


def render(
    result: Mapping[str, Any], curves: Curves, layers: Layers, coverage: Coverage
) -> str:
    """Returns the page. Sections that have nothing to show are left out.

    Args:
      result: as in `result.json`.
      curves: stage -> records, as `metrics.read` returns them.
      layers: as `layers.describe` returns them.
      coverage: `{"weights": [{"path", "shape", "taken_by": [rule, ...]}],
        "sites": [{"site", "weight", "weight_taken_by", "operand", "taken_by", "bits",
        "why"}]}`: which rule took each weight and each operand of a contraction, or
        why none did.
    """
    drawn = plots.size_accuracy(_points(result))
    return _page(result, curves, layers, coverage, drawn)


def _page(
    result: Mapping[str, Any],
    curves: Curves,
    layers: Layers,
    coverage: Coverage,
    sizes: Figure,
) -> str:
    curves = {stage: records for stage, records in curves.items() if records}
    title = escape(result["experiment"])
    parts = [
        _head(result, title),
        sections.comparison(result),
        runtimes.section(result),
        _sizes(result, sizes),
        _training(result, curves),
        data.section(result),
        cuts.section(result),
        _weights(layers),
        sections.coverage(coverage),
        sections.settings(result),
    ]
    return shell(title, parts)


def shell(title: str, parts: Sequence[str], footer: str = FOOTER) -> str:
    """Returns a whole page; `title`, `parts` and `footer` are HTML."""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: Pare report</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}"
        f"<footer>{footer}</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def write(
    workdir: str | os.PathLike,
    result: Mapping[str, Any],
    curves: Curves,
    layers: Layers,
    coverage: Coverage,
) -> Path:
    """Writes `report.html` and its size-against-accuracy plot as `pareto.svg`.

    Returns:
      the path of the page.
    """
    path = Path(workdir) / NAME
    drawn = plots.size_accuracy(_points(result))  # once: placing its labels is slow
    style.save(drawn, path.with_name("pareto.svg"))
    files.write_text(path, _page(result, curves, layers, coverage, drawn))
    return path


def _head(result: Mapping[str, Any], title: str) -> str:
    first, row = verdict.subject(result)
    tiles = []
    if row is not first:
        name = escape(first.name)
        zeros = row.nonzero / row.params if row.params else None
        tiles = [
            (formats.times(row.ratio["file_bytes"]), f"smaller on disk than {name}"),
            (
                formats.points(row.ratio["accuracy"]),
                f"points of accuracy against {name}",
            ),
            (formats.times(row.ratio["latency"]), f"the speed of {name} here"),
            (formats.percent(zeros, 1) + " %", "of the weights are not zero"),
        ]
    told = "".join(
        f"<div><dt>{words}</dt><dd>{escape(number)}</dd></div>\n"
        for number, words in tiles
        if not number.startswith(formats.MISSING + " ") and number != formats.MISSING
    )
    return (
        f'<header>\n<p class="eyebrow">Pare report</p>\n<h1>{title}</h1>\n'
        f'<p class="verdict">{escape(verdict.sentence(result))}</p>\n</header>\n'
        + (f'<dl class="tiles">\n{told}</dl>\n' if told else "")
    )


def figure(svg: str, *, narrow: bool = False) -> str:
    """Returns a figure of a page."""
    kind = ' class="narrow"' if narrow else ""
    return f"<figure{kind}>{svg}</figure>\n"


def _points(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "file_bytes": row.file_bytes,
            "accuracy": row.accuracy,
            "packed": row.kind == "artifact",
        }
        for row in results.rows(result)
        if row.accuracy is not None
    ]


def _sizes(result: Mapping[str, Any], drawn: Figure) -> str:
    points = _points(result)
    svg = style.inline(
        drawn,
        "sizes",
        "File size against test accuracy: "
        + ", ".join(
            f"{p['name']} {formats.size(p['file_bytes'])} "
            f"{formats.percent(p['accuracy'])} %"
            for p in points
        ),
    )
    note = (
        "One point a file; up and to the left is better. The line is the Pareto front: "
        "no other file is both smaller and more accurate. Filled points are packed."
    )
    return sections.section("Size against accuracy", note, figure(svg, narrow=True))


def _training(result: Mapping[str, Any], curves: Curves) -> str:
    if not curves:
        return sections.section("Training", "", sections.stages(result))
    svg = style.inline(
        plots.training(curves),
        "training",
        f"Loss and accuracy against the step in {', '.join(curves)}",
    )
    note = "Loss (logarithmic) and accuracy as each stage went on."
    return sections.section("Training", note, figure(svg) + sections.stages(result))


def _weights(layers: Layers) -> str:
    if not any(len(layer["shape"]) >= 2 for layer in layers):
        return ""
    zeros = style.inline(
        layer_plots.sparsity(layers), "sparsity", "Zeros in each layer"
    )
    bins = style.inline(
        layer_plots.histograms(layers),
        "weights",
        "Weights of each layer before and after",
    )
    first = "The part of each matrix or kernel that is exactly zero, and what is kept."
    second = (
        "Grey: before compression. Blue: as packed. Exact zeros are left out, and each "
        "of the two is scaled to its own highest bin."
    )
    return sections.section(
        "Sparsity by layer",
        first + _omitted(layer_plots.left_out(layers, layer_plots.BARS)),
        figure(zeros, narrow=True),
    ) + sections.section(
        "Weights by layer",
        second + _omitted(layer_plots.left_out(layers, layer_plots.HISTOGRAMS)),
        figure(bins) + sections.layers(layers),
    )


def _omitted(count: int) -> str:
    return f" The {count} smallest are left out." if count else ""
