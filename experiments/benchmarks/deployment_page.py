"""What files of integers gain, as a page."""

from collections.abc import Mapping
from typing import Any

from lib.report import formats

COMMAND = "python run.py --config=configs/benchmarks/deploy.py --workdir=DIR"


def _cpu(model: Mapping[str, Any]) -> list[str]:
    """Returns for each file of integers its gain by CPU time, which others' load, that
    the wall clock sees, does not enter."""
    found = []
    for name, entry in model["artifacts"].items():
        other = model["artifacts"].get(model["against"][name])
        if other is None:
            continue
        gains = ", ".join(
            f"{formats.times(whole['cpu'] / row['cpu'])} at batch {row['batch']} "
            f"({row['threads']} thread{'s' if row['threads'] > 1 else ''})"
            for row, whole in zip(entry["times_ms"], other["times_ms"], strict=True)
        )
        found.append(f"{name} by the CPU time of the process: {gains}")
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    about, settings = result["environment"], result["config"]["export"]
    versions = ", ".join(
        f"{name} {about[name]}"
        for name in ("jax", "onnx", "onnxruntime", "ai_edge_litert")
        if name in about
    )
    lines = [
        "# Files of integers",
        "",
        f"    {COMMAND}",
        "",
        f"{about['cpu']}, Python {about['python']}, {versions}; load "
        f"{', '.join(f'{x:.1f}' for x in about['load'])}. Fresh weights; medians and "
        f"quartiles of {settings['repeats']} calls in turn, milliseconds a batch.",
        "",
    ]
    for name, model in result["models"].items():
        artifacts = model["artifacts"]
        rows = next((a["times_ms"] for a in artifacts.values()), [])
        heads = ["file", "bytes", "as JAX %", "integer"]
        heads += [f"batch {r['batch']}, threads {r['threads']}" for r in rows]
        lines += [f"## {name}", "", f"| {' | '.join(heads)} |"]
        lines.append("| --- |" + " ---: |" * (len(heads) - 1))
        for kind, entry in artifacts.items():
            floats, integers = (
                entry[f"{k}_contractions"] for k in ("float", "integer")
            )
            cells = [
                kind,
                formats.exact(entry["bytes"]),
                formats.percent(entry["same_class_as_jax"]),
                f"{integers} of {floats + integers}",
            ]
            cells += [
                f"{formats.milliseconds(t['median'])} "
                f"({formats.milliseconds(t['low'])} to "
                f"{formats.milliseconds(t['high'])})"
                for t in entry["times_ms"]
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        lines += [f"- {sentence}" for sentence in model["verdicts"]]
        lines += [f"- {sentence}" for sentence in _cpu(model)]
        lines += [f"- No {kind}: {why}" for kind, why in model["left_out"].items()]
        lines.append("")
    return "\n".join(lines)
