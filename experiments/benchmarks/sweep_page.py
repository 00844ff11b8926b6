"""What a sweep found, as a page and as text for a terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np

COMMAND = "python run.py --config=configs/benchmarks/sweep.py[:small] --workdir=DIR"
NAMES = {
    "sequential": "one program, one run after another",
    "vmapped": "one program, all runs side by side (vmap)",
    "sharded": "one program, the runs dealt out to all devices",
    "compiled": "a program compiled for each run",
}


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row a setting: values, accuracy over the seeds, weights not zero."""
    fields = list(result["config"]["sweep"]["fields"])
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for one in result["runs"]:
        groups.setdefault(tuple(one[f] for f in fields), []).append(one)
    rows = [[*fields, "validation %", "lowest", "highest", "n", "nonzero"]]
    for values, runs in groups.items():
        found = 100 * np.array([one["accuracy"] for one in runs])
        spread = [f"{f(found):.2f}" for f in (np.median, np.min, np.max)]
        nonzero = int(np.median([one["nonzero"] for one in runs]))
        rows.append(
            [*(f"{v:g}" for v in values), *spread, str(len(runs)), f"{nonzero:,}"]
        )
    return rows


def times(result: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row a form of running: seconds, and the ratio to the slowest.

    Where forms were run again, when they were compiled, the median and the range, too.
    """
    seconds, again = result["seconds"], result["compiled_seconds"]
    rows = [["form", "seconds, compiling included", "of the slowest"]]
    if again:
        rows[0].append("compiled: median (lowest to highest)")
    for form, value in seconds.items():
        share = value / max(seconds.values())
        rows.append([NAMES[form], f"{value:.1f}", f"{share:.2f}"])
        if form in again:
            took = [f"{f(again[form]):.2f}" for f in (np.median, np.min, np.max)]
            rows[-1].append(f"{took[0]} ({took[1]} to {took[2]})")
    return rows


def text(result: Mapping[str, Any]) -> str:
    """Returns both tables in plain text, columns aligned."""
    lines = []
    for rows in (table(result), times(result)):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            padded = (c.rjust(w) for c, w in zip(row, widths, strict=True))
            lines.append("  ".join(padded))
        lines.append("")
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    about, config = result["environment"], result["config"]
    stage = config[config["sweep"]["stage"]]
    lines = [
        "# Sweeps",
        "",
        f"    {COMMAND}",
        "",
        f"{len(result['runs'])} runs of {stage['steps']} steps of "
        f"{stage['batch_size']} examples of {config['data']['name']}, "
        f"{stage['model']['name']} {'-'.join(map(str, stage['model']['widths']))}; "
        f"accuracy on {result['examples']} validation examples. "
        f"{about['cpu']}, {about['cores']} cores, device {about['device']}, "
        f"JAX {about['jax']}.",
        "",
    ]
    for rows in (times(result), table(result)):
        lines.append("| " + " | ".join(rows[0]) + " |")
        lines.append("| --- |" + " ---: |" * (len(rows[0]) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
        lines.append("")
    return "\n".join(lines)
