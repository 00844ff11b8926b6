"""The papers' claims beside what came out, as `RESULTS.md` and a line a paper."""

from collections.abc import Mapping
from typing import Any

COMMAND = "python run.py --config=configs/reproduce.py --workdir=DIR"

INTRO = """\
Each row is one config over the seeds: the claim as the paper prints it, and ours as
median (lowest to highest). Errors are per cent of the 10,000 test images, measured on
the packed file that stands beside them; sizes are lengths of files, and ratios are to
4 bytes for each weight and bias of the dense model. Nothing was chosen on the test
split. `holds` compares the median error with the paper's plus the config's margin.
"""


def _range(spread: Mapping[str, float], digits: int) -> str:
    low, middle, high = (f"{spread[k]:,.{digits}f}" for k in ("low", "median", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def line(row: Mapping[str, Any]) -> str:
    """Returns one paper's outcome in a line."""
    return (
        f"{row['paper']}: error {_range(row['error'], 2)} % "
        f"(claim {row['claim']['error'] or '-'}), "
        f"{_range(row['bytes'], 0)} bytes, {_range(row['ratio'], 1)}x smaller "
        f"(claim {row['claim']['ratio'] or '-'}), n={row['error']['n']}"
    )


HEADS = (
    "paper",
    "claim",
    "seeds",
    "our error %",
    "our dense error %",
    "file bytes",
    "times smaller",
    "not zero",
    "seconds",
    "holds",
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """Returns the texts of one row of the table."""
    claim = row["claim"]
    return [
        claim["paper"],
        claim["says"],
        str(row["error"]["n"]),
        _range(row["error"], 2),
        _range(row["dense_error"], 2),
        _range(row["bytes"], 0),
        _range(row["ratio"], 1),
        f"{_range(row['nonzero'], 0)} of {row['params']:,}",
        _range(row["seconds"], 0),
        "yes" if row["holds"] else "no",
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    about = result["environment"]
    seeds = ", ".join(map(str, result["config"]["seeds"]))
    lines = [
        "# Papers",
        "",
        f"    {COMMAND}",
        "",
        f"{about['cpu']}, {about['cores']} cores, device {about['device']}, Python "
        f"{about['python']}, JAX {about['jax']}; seeds {seeds}.",
        "",
        *INTRO.splitlines(),
        "",
        "| " + " | ".join(HEADS) + " |",
        "| --- | --- |" + " ---: |" * (len(HEADS) - 3) + " --- |",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in result["rows"]]
    lines += ["", "## Commands and differences", ""]
    for row in result["rows"]:
        lines.append(f"- {row['claim']['paper']}: `python {row['command']}`")
        if row["claim"]["differs"]:
            lines.append(f"  Differs: {row['claim']['differs']}")
        if any(row["alive"]):
            counts = "; ".join("-".join(map(str, a)) for a in row["alive"])
            lines.append(f"  Neurons that reach anything, seed by seed: {counts}.")
    return "\n".join(lines) + "\n"
