"""Tables of text: for a terminal, and for a Markdown page."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def text(rows: Rows) -> str:
    """Returns the rows with their columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )


def markdown(rows: Rows) -> str:
    """Returns a Markdown table, the first row its head, numbers to the right."""
    first, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    return "\n".join([first, rule, *rest])
