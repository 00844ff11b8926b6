"""What takes each weight and each contraction of a stage, told before it runs."""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import check
from lib import files

NAME = "coverage.txt"
HEADS = (
    "contraction",
    "MACs",
    "weight",
    "taken by",
    "input",
    "bits",
    "in float because",
)


def write(at: pathlib.Path, stages: Sequence[check.Stage]) -> None:
    """Writes a table of every contraction of each stage into the run's folder."""
    parts = [f"{stage.name}\n{text(stage)}" for stage in stages]
    files.write_text(at / NAME, "\n".join(parts))


def text(stage: check.Stage) -> str:
    """Returns the table of one stage, a line a contraction in program order."""
    rows = [HEADS]
    for one in told(stage)["sites"]:
        rounded = one["operand"] and f"{one['operand']}, {one['range']}"
        rows.append(
            (
                one["site"],
                f"{one['macs']:,}",
                one["weight"] or "-",
                one["weight_taken_by"] or "-",
                rounded or "-",
                str(one["bits"] or "-"),
                one["why"] or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def told(stage: check.Stage) -> dict[str, Any]:
    """Returns what took each weight and each contraction, as the report wants it."""
    taken = {row.path: row.taken_by for row in stage.plan}
    weights = [
        {
            "path": row.path,
            "shape": list(row.shape),
            "taken_by": [row.taken_by] if row.taken_by else [],
        }
        for row in stage.plan
    ]
    sites = [
        {
            "site": row.site,
            "macs": row.macs,
            "weight": row.weight,
            "weight_taken_by": taken.get(row.weight) or "",
            "operand": ", ".join(row.operands),
            "taken_by": row.rule and f"fake_quantize({row.rule!r})",
            "range": row.range,
            "bits": row.bits,
            "why": row.why,
        }
        for row in stage.coverage
    ]
    return {"weights": weights, "sites": sites}
