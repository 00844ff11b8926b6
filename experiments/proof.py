"""What the packed files are worth: measured in a fresh process, and reported."""

import pathlib
import subprocess
import sys
from typing import Any

from experiments import packing, shipping, workdir
from lib import errors, files
from lib.deploy import measure
from lib.report import layers, metrics, progress, results

ROOT = pathlib.Path(__file__).parents[1]


def prove(config: Any, at: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Measures every stage's artifact in a fresh process; returns what it found."""
    paths = {name: str(workdir.artifact_path(at, name)) for name in config.stages}
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        f"--config={ROOT / 'configs' / 'evaluate.py'}",
        f"--workdir={at / 'evaluation'}",
        f"--config.paths={tuple(paths.values())!r}",
        f"--config.eval_batch_size={config.eval_batch_size}",
        *(f"--config.latency.{k}={v}" for k, v in config.latency.items()),
    ]
    progress.say("measuring the packed files in a fresh process")
    # In the current folder, where a model of the user's own may be.
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    from lib.report import html  # noqa: F401  loads matplotlib while the child measures

    try:
        out, err = child.communicate()
    finally:
        child.kill()  # where SIGTERM has ended the wait
    if child.returncode:
        why = "".join((err or out).strip().splitlines()[-1:]).removeprefix("error: ")
        raise errors.UserError(f"the packed files could not be measured: {why}")
    found = files.read_json(at / "evaluation" / "evaluation.json")
    return {name: found[path] for name, path in paths.items()}


def report(
    config: Any,
    at: pathlib.Path,
    found: dict[str, dict[str, Any]],
    covered: dict[str, Any],
    shipped: shipping.Shipped,
    of_data: dict[str, Any],
) -> results.Result:
    """Writes `result.json` and `report.html` from what was measured."""
    stages = []
    for name in config.stages:
        one = found[name]
        record = files.read_json(workdir.record_path(at, name))
        measured = ("accuracy", "validation_accuracy", "loss", "count")
        stages.append(
            {
                **record,
                "metrics": {k: one[k] for k in measured} | record.get("metrics", {}),
                "size": {
                    k: one[k] for k in ("params", "nonzero", "file_bytes", "macs")
                },
                "latency_ms": one["latency_ms"],
            }
        )
    last = config.stages[-1]
    ships = shipped.plain()
    timed = ships["artifacts"].get("packed", {"stage": last})
    one = found[timed["stage"]]
    packed = {
        "path": str(workdir.artifact_path(at, timed["stage"]).relative_to(at)),
        "bytes": one["file_bytes"],
        "accuracy": one["accuracy"],
        "latency_ms": one["latency_ms"],
        "size": {k: one[k] for k in ("params", "nonzero", "macs")},
    }
    environment = measure.environment() | shipped.versions | {"seed": config.seed}
    # Beside the stages' times, which are JAX's of this machine, stand only its own.
    packed |= {k: v for k, v in timed.items() if k != "latency_ms"}
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": environment,
        "stages": stages,
        "data": of_data,
        **ships,
        "artifacts": {**ships["artifacts"], "packed": packed},
    }
    final = packing.load(workdir.artifact_path(at, last))
    origin = workdir.origin(config, last)
    before = packing.load(workdir.artifact_path(at, origin)).params
    described = layers.describe(final.frozen, before if origin != last else None)
    written = results.write(at, result)
    from lib.report import html  # matplotlib: not for those who only train

    html.write(at, written, metrics.read(at), described, covered)
    return written
