"""The table of stages and artifacts, for a terminal, a plain text file and Markdown."""

import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report import formats, progress, results

PLAIN_WIDTH = 100  # of a file or pipe, which has no width of its own


def _batch(rows: Sequence[results.Row]) -> int | None:
    """Returns the batch size that all rows were timed with, None if they differ."""
    sizes = {row.latency["batch"] for row in rows if row.latency}
    return sizes.pop() if len(sizes) == 1 else None


def _latency(row: results.Row, batch: int | None) -> str:
    if row.latency is None:
        return formats.MISSING
    text = formats.milliseconds(row.latency["median"])
    return text if batch else f"{text} @{row.latency['batch']}"


def cells(result: Mapping[str, Any], *, wide: bool) -> tuple[list[str], list[list]]:
    """Returns the heads, one or two lines each, and a list of texts for each row.

    Args:
      result: as in `result.json`.
      wide: all digits of the sizes and counts, instead of three.
    """
    rows = results.rows(result)
    batch = _batch(rows)
    count = formats.exact if wide else formats.count
    size = formats.exact if wide else formats.size
    heads = [
        "stage",
        "acc.\n%",
        f"points vs\n{rows[0].name}" if wide else "points",
        "params",
        "nonzero",
        "file\nbytes" if wide else "file",
        "MACs",
        f"ms/batch\nof {batch}" if batch else "ms\n@batch",
        "x\nsmaller",
        "x\nfaster",
    ]
    body = []
    for i, row in enumerate(rows):
        ratio = row.ratio if i else {}  # the first stage is not compared with itself
        body.append(
            [
                row.name,
                formats.percent(row.accuracy),
                formats.points(ratio.get("accuracy")),
                count(row.params),
                count(row.nonzero),
                size(row.file_bytes),
                count(row.macs),
                _latency(row, batch),
                formats.times(ratio.get("file_bytes")),
                formats.times(ratio.get("latency")),
            ]
        )
    return heads, body


def build(result: Mapping[str, Any], console, *, ascii_only: bool):
    """Returns the `rich.table.Table`, with all digits if they fit on the console."""
    wide = _table(result, wide=True, ascii_only=ascii_only)
    unbounded = console.options.update(width=10_000)
    if console.measure(wide, options=unbounded).maximum <= console.width:
        return wide
    return _table(result, wide=False, ascii_only=ascii_only)


def _table(result: Mapping[str, Any], *, wide: bool, ascii_only: bool):
    from rich import box, table
    from rich.text import Text

    ascii_box = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    heads, body = cells(result, wide=wide)
    shown = table.Table(
        box=ascii_box if ascii_only else box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if wide else 0,
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    # Names are folded only in the narrow table, and only if they have to be.
    fold = {"no_wrap": True} if wide else {"overflow": "fold"}
    for i, head in enumerate(heads):
        if i == 0:
            shown.add_column(Text(head), vertical="bottom", **fold)
        else:
            shown.add_column(Text(head), justify="right", no_wrap=True)
    artifacts = [row.kind == "artifact" for row in results.rows(result)]
    for texts, packed in zip(body, artifacts, strict=True):
        style = "bold green" if packed else ""
        shown.add_row(*(Text(t) for t in texts), style=style)
    return shown


def text(result: Mapping[str, Any], width: int = 80) -> str:
    """Returns the table in plain ASCII, of fixed width, with a newline at its end."""
    from rich.console import Console

    out = io.StringIO()
    plain = Console(file=out, width=width, color_system=None, legacy_windows=False)
    plain.print(build(result, plain, ascii_only=True))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def show(result: Mapping[str, Any]) -> None:
    """Prints the table: in colour on a terminal, in plain text elsewhere."""
    if progress.on_terminal():
        console = progress.console()
        console.print(build(result, console, ascii_only=False))
    else:
        sys.stdout.write(text(result, PLAIN_WIDTH))
        sys.stdout.flush()


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the table in GitHub's Markdown, formats aligned to the right."""
    heads, body = cells(result, wide=False)
    lines = [[h.replace("\n", " ") for h in heads]]
    lines.append(["---"] + ["---:"] * (len(heads) - 1))
    lines += body
    return "".join(
        "| " + " | ".join(c.replace("|", r"\|") for c in line) + " |\n"
        for line in lines
    )
