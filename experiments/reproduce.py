"""Papers' rows: each config over several seeds, and what came out beside the claim.

A run is `run.py` in a process and a workdir of its own, so it resumes where it was
killed; a finished one is only read.
"""

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

from experiments import packing, workdir
from experiments.benchmarks import results_page
from lib import errors, files, tree
from lib.deploy import measure
from lib.report import progress, results

ROOT = pathlib.Path(__file__).parents[1]
NAME = "reproduced.json"
PAGE = "RESULTS.md"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Runs the papers of the config; writes and returns `reproduced.json`."""
    check(config)
    at = workdir.claim(workdir_path, config)
    rows = []
    for paper in config.papers:
        runs = [_run(paper, seed, at, config.options) for seed in config.seeds]
        rows.append(row(paper, runs))
        progress.say(results_page.line(rows[-1]))
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "rows": rows,
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    files.write_text(at / PAGE, results_page.markdown(result))
    progress.say(f"page: {at / PAGE}")
    return result


def check(config: Any) -> None:
    """Raises a `UserError` for papers or seeds that are not there."""
    known = {p.stem: None for p in sorted((ROOT / "configs" / "papers").glob("*.py"))}
    known.pop("common")
    for paper in config.papers:
        errors.lookup(known, paper.split(":")[0], "paper")
    if not config.papers or not config.seeds:
        raise errors.UserError("reproduce: papers and seeds name at least one each")


def command(paper: str, seed: int, at: str, options: tuple[str, ...]) -> list[str]:
    """Returns the arguments of `python` for one run."""
    file, _, variant = paper.partition(":")
    name = f"configs/papers/{file}.py" + (f":{variant}" if variant else "")
    return [
        "run.py",
        f"--config={name}",
        f"--workdir={at}",
        f"--config.seed={seed}",
        *options,
    ]


def _run(
    paper: str, seed: int, at: pathlib.Path, options: tuple[str, ...]
) -> dict[str, Any]:
    """Returns one run's `result.json`, after running it if it is not finished."""
    folder = at / paper.replace(":", "_") / f"seed_{seed}"
    arguments = command(paper, seed, str(folder), options)
    progress.say(f"{paper}, seed {seed}: {folder}")
    child = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if child.returncode:
        last = "".join((child.stderr or child.stdout).strip().splitlines()[-1:])
        raise errors.UserError(f"{paper}, seed {seed}: {last.removeprefix('error: ')}")
    found = results.read(folder)
    stage = found["config"]["claim"]["stage"]
    packed = packing.load(workdir.artifact_path(folder, stage))
    return {**found, "alive": alive(packed.params)}


def alive(params: Any) -> list[int]:
    """Returns how many inputs of each dense layer reach anything, first layer first.

    An input counts if a weight that is not zero leaves it, and, from the second layer
    on, if one enters it too. Layers that are not matrices, or do not follow one
    another, give [].
    """
    kernels = [np.asarray(w) for p, w in tree.flatten(params).items() if "kernel" in p]
    pairs = zip(kernels[:-1], kernels[1:], strict=True)
    if any(w.ndim != 2 for w in kernels) or any(
        a.shape[1] != b.shape[0] for a, b in pairs
    ):
        return []
    counts, entered = [], np.ones(kernels[0].shape[0], bool)
    for kernel in kernels:
        counts.append(int((entered & (kernel != 0).any(1)).sum()))
        entered = (kernel != 0).any(0)
    return counts


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "low": float(np.min(values)),
        "high": float(np.max(values)),
        "n": len(values),
    }


def row(paper: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the runs of one paper say, beside its claim."""
    claim = runs[0]["config"]["claim"]
    found: dict[str, list[float]] = {
        k: [] for k in ("error", "dense_error", "bytes", "ratio", "nonzero", "seconds")
    }
    for one in runs:
        stages = {stage["name"]: stage for stage in one["stages"]}
        ours, dense = stages[claim["stage"]], stages[claim["dense"]]
        size = ours["size"]
        found["error"].append(100 * (1 - ours["metrics"]["accuracy"]))
        found["dense_error"].append(100 * (1 - dense["metrics"]["accuracy"]))
        found["bytes"].append(size["file_bytes"])
        found["ratio"].append(4 * dense["size"]["params"] / size["file_bytes"])
        found["nonzero"].append(size["nonzero"])
        found["seconds"].append(sum(stage["seconds"] for stage in one["stages"]))
    spreads = {k: _spread(v) for k, v in found.items()}
    error = spreads["error"]["median"]
    return {
        "paper": paper,
        "claim": claim,
        "params": stages[claim["stage"]]["size"]["params"],
        "alive": [one["alive"] for one in runs],
        "command": " ".join(command(paper, 0, "DIR", ())[:-1]),
        "holds": not claim["error"] or error <= claim["error"] + claim["within"],
        **spreads,
    }
