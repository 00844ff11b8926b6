"""Files in the runtimes that they are for: accuracy, bytes, times, and the verdict."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lib.report import formats, sections

Artifacts = Mapping[str, Mapping[str, Any]]


def timed(result: Mapping[str, Any]) -> Artifacts:
    """Returns the artifacts that were run and timed in their own runtime."""
    return {n: a for n, a in result["artifacts"].items() if a.get("times_ms")}


def cells(artifacts: Artifacts) -> tuple[list[str], list[list[str]]]:
    """Returns the heads, and a row for each artifact; its first text is its name."""
    one = next(iter(artifacts.values()))
    heads = ["file", "runtime", "bytes", "acc. %", "as JAX %", "integer", "MB"]
    for row in one["times_ms"]:
        threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        heads.append(f"ms/batch of {row['batch']}, {threads}")
    rows = []
    for name, entry in artifacts.items():
        floats, integers = (entry[f"{k}_contractions"] for k in ("float", "integer"))
        memory = entry["peak_memory_bytes"]
        rows.append(
            [
                name,
                entry["runtime"],
                formats.exact(entry["bytes"]),
                formats.percent(entry["accuracy"]),
                formats.percent(entry["same_class_as_jax"]),
                f"{integers} of {floats + integers}",
                formats.MISSING if memory is None else f"{memory / 1e6:.1f}",
                *(_time(row) for row in entry["times_ms"]),
            ]
        )
    return heads, rows


def _time(row: Mapping[str, Any]) -> str:
    low, median, high = (
        formats.milliseconds(row[key]) for key in ("low", "median", "high")
    )
    return f"{median} ({low}-{high})"


def lines(artifacts: Artifacts) -> list[str]:
    """Returns the table as lines of text."""
    heads, rows = cells(artifacts)
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{text:>{width}}" if i > 1 else f"{text:<{width}}"
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def section(result: Mapping[str, Any]) -> str:
    """Returns the section of the report, or nothing where no file was timed."""
    artifacts = timed(result)
    if not artifacts:
        return ""
    heads, rows = cells(artifacts)
    note = (
        "Each file was run over the whole test split in its own runtime, and timed in "
        "turn with the others: medians and quartiles of a batch. Integer: how many "
        "contractions the runtime runs on integers. MB: memory that opening the file "
        "and running its largest batch adds at the most."
    )
    verdicts: Sequence[str] = result.get("verdicts", [])
    told = "".join(f'<p class="note">{escape(text)}</p>\n' for text in verdicts)
    for name, why in result.get("left_out", {}).items():
        told += f'<p class="note">No {escape(name)}: {escape(why)}</p>\n'
    body = sections.table(
        heads, [sections.line(row[0], map(sections.cell, row[1:])) for row in rows]
    )
    return sections.section("Where it runs, and how fast", note, told + body)
