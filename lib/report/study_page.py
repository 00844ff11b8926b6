"""The page of a search: what was best, and what mattered."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lib import files
from lib.report import formats, html, results, sections, study_plots, style

FIGURES = ("history", "front", "importance", "parallel")


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns the figures of a search; those that have nothing to show are left out.

    Args:
      result: as in `tune.json`.
    """
    trials, objectives = result["trials"], result["objectives"]
    shares = {k: v for k, v in result["importance"].items() if v}
    drawn = {"history": study_plots.history(trials, objectives)}
    if len(objectives) > 1:
        drawn["front"] = study_plots.front(trials, objectives, result["front"])
    if shares:
        drawn["importance"] = study_plots.importance(shares)
    drawn["parallel"] = study_plots.parallel(trials, result["fields"], objectives)
    return drawn


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Writes `report.html` and each figure as SVG; returns the path of the page."""
    at = Path(workdir)
    drawn = figures(result)
    for name, figure in drawn.items():
        style.save(figure, at / f"{name}.svg")
    files.write_text(at / results.PAGE, render(result, drawn))
    return at / results.PAGE


TOLD = {
    "history": (
        "History",
        "Each trial's values, judged on the validation split, and the best so far.",
    ),
    "front": (
        "Pareto front",
        "One point a trial. In colour: no other is better in one objective and as "
        "good in all others.",
    ),
    "importance": (
        "What mattered",
        "Share of each objective's variance over the trials that a field explains by "
        "itself (fANOVA).",
    ),
    "parallel": (
        "Parallel coordinates",
        "One line a trial; the best tenth by the first objective is in colour.",
    ),
}


def render(result: Mapping[str, Any], drawn: Mapping[str, Figure]) -> str:
    """Returns the page."""
    tune = result["config"]["tune"]
    states = [t["state"] for t in result["trials"]]
    told = ", ".join(
        f"{states.count(s)} {word}"
        for s, word in (
            ("complete", "complete"),
            ("pruned", "ended early"),
            ("fail", "failed"),
        )
        if s in states
    )
    head = (
        '<header>\n<p class="eyebrow">Pare report</p>\n'
        f"<h1>search over {escape(tune['base'])}</h1>\n"
        f'<p class="verdict">{len(states)} trials by {escape(tune["sampler"])} '
        f"({told}); pruner {escape(tune['pruner'])}.</p>\n</header>\n"
    )
    parts = [head, _best(result)]
    for name, figure in drawn.items():
        title, note = TOLD[name]
        svg = style.inline(figure, name, f"{title}. {note}")
        parts.append(sections.section(title, note, html.figure(svg)))
    parts += [_trials(result), sections.settings(result)]
    return html.shell(f"search over {escape(tune['base'])}", parts)


def value(name: str, number: float) -> str:
    """Returns the value of an objective as text."""
    if name == study_plots.PERCENT:
        return formats.percent(number) + " %"
    if name == "file_bytes":
        return formats.size(round(number))
    return f"{number:,.4g}" if number < 1000 else f"{number:,.0f}"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}"
        for k, v in settings.items()
    )


def _best(result: Mapping[str, Any]) -> str:
    names = [name for name, _ in result["objectives"]]
    lines = [
        sections.line(
            str(one["number"]),
            [
                *(
                    sections.cell(value(k, v))
                    for k, v in zip(names, one["values"], strict=True)
                ),
                sections.cell(formats.percent(one["test_accuracy"]) + " %"),
                sections.cell(_settings(one["settings"]), "long"),
                sections.cell(one["config"]),
            ],
        )
        for one in result["best"]
    ]
    heads = ("trial", *map(study_plots.words, names), "test accuracy", "settings")
    note = (
        "Chosen on the validation split, then measured on the test split, once. Each "
        "has a report of its own in its folder, and a config file that runs as it is."
    )
    table = sections.table((*heads, "config"), lines, long="settings")
    return sections.section("Best", note, table)


def _trials(result: Mapping[str, Any]) -> str:
    names = [name for name, _ in result["objectives"]]
    lines = []
    for one in result["trials"]:
        values = one["values"] or [None] * len(names)
        cells = [
            sections.cell("" if v is None else value(k, v))
            for k, v in zip(names, values, strict=True)
        ]
        state = one["state"] + (f": {one['why']}" if one["why"] else "")
        cells += [
            sections.cell(state),
            sections.cell(_settings(one["settings"]), "long"),
        ]
        lines.append(sections.line(str(one["number"]), cells))
    heads = ("trial", *map(study_plots.words, names), "state", "settings")
    table = sections.table(heads, lines, long="settings")
    return sections.section("Trials", "", table)
