"""What removing channels gains, as a page."""

from collections.abc import Mapping
from typing import Any

from lib.report import formats

COMMAND = "python run.py --config=configs/benchmarks/shrink.py --workdir=DIR"


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    about, settings = result["environment"], result["config"]["export"]
    versions = ", ".join(
        f"{name} {about[name]}"
        for name in ("jax", "onnx", "onnxruntime")
        if name in about
    )
    lines = [
        "# Channels removed",
        "",
        f"    {COMMAND}",
        "",
        f"{about['cpu']}, Python {about['python']}, {versions}; load "
        f"{', '.join(f'{x:.1f}' for x in about['load'])}. Fresh weights; medians and "
        f"quartiles of {settings['repeats']} calls in turn, one process, one thread, "
        "milliseconds a batch.",
        "",
    ]
    for name, entries in result["models"].items():
        lines += [f"## {name}", "", *_table(entries), ""]
        lines += [*(f"- {sentence}" for sentence in gains(entries)), ""]
    for name, one in result["analysis"].items():
        lines.append(
            f"- Finding the {one['groups']} groups of {name} ({one['params']:,} "
            f"parameters), tracing included: {one['seconds']:.2f} s in the median of "
            f"{one['n']}, {one['slowest']:.2f} s at the most."
        )
    return "\n".join([*lines, ""])


def _table(entries: Mapping[str, Any]) -> list[str]:
    rows = next(iter(entries.values()))["times_ms"]
    heads = ["file", "bytes", "as JAX %"]
    heads += [f"batch {row['batch']}" for row in rows]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, entry in entries.items():
        cells = [
            name,
            formats.exact(entry["bytes"]),
            formats.percent(entry["same_class_as_jax"]),
        ]
        cells += [
            f"{formats.milliseconds(t['median'])} ({formats.milliseconds(t['low'])} to "
            f"{formats.milliseconds(t['high'])})"
            for t in entry["times_ms"]
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gains(entries: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each cut file, against the whole floats of its runtime."""
    found = []
    for name, entry in entries.items():
        kind = entry["kind"]
        whole = "onnx_float32" if kind.startswith("onnx") else "stablehlo_float32"
        if whole not in entries or name == whole:
            continue
        pairs = zip(entry["times_ms"], entries[whole]["times_ms"], strict=True)
        told = ", ".join(
            f"{formats.times(large['median'] / small['median'])} at batch "
            f"{small['batch']} ({formats.times(large['cpu'] / small['cpu'])} by CPU "
            "time)"
            for small, large in pairs
        )
        smaller = formats.times(entries[whole]["bytes"] / entry["bytes"])
        found.append(f"{name} against {whole}: {told}; {smaller} smaller")
    return found
