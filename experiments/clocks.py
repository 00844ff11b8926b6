"""What files cost to run: times and memory, in processes of their own.

A process is held to as many cores as it may use threads, before any runtime starts in
it: XLA takes every core that it finds.
"""

import concurrent.futures
import importlib
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import targets
from lib.deploy import measure
from lib.report import progress

Files = Mapping[str, tuple[str, pathlib.Path]]  # name -> (target, path)


def cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def times(
    files: Files,
    pixels: Sequence[np.ndarray],
    *,
    threads: Sequence[int],
    repeats: int,
    warmup: int,
) -> dict[str, list[dict[str, Any]]]:
    """Returns the latency of each file; all files take turns in one process.

    Args:
      files: what to time.
      pixels: batches, one of each size.
      threads: how many to use, one process for each number.
      repeats: timed rounds.
      warmup: rounds before these.

    Returns:
      {name: [{"threads", "batch", "median", "low", "high", "n", "cpu"}]}, milliseconds
      a batch with quartiles; `cpu` is the median of the process's CPU time.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    usable = [count for count in threads if count <= cores()]
    if len(usable) < len(threads):
        progress.say(f"timed with {usable} threads: this process may use no more")
    for count in usable:
        rows = _apart(count, _times, dict(files), pixels, count, repeats, warmup)
        for name, row in rows:
            found[name].append(row)
    return found


def memory(files: Files, pixels: np.ndarray) -> dict[str, int | None]:
    """Returns the bytes that opening each file and running one batch add at the most.

    Each in a process of its own, on top of what the runtime takes once it is imported;
    None where the system does not tell.
    """
    return {
        name: _apart(1, _memory, target, path, pixels)
        for name, (target, path) in files.items()
    }


def _apart(threads: int, function: Callable[..., Any], *args: Any) -> Any:
    """Returns what a function returns in a fresh process of so many cores."""
    with concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_hold,
        initargs=(threads,),
    ) as pool:
        return pool.submit(function, *args).result()


def _hold(threads: int) -> None:
    """Leaves this process its first `threads` cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _times(files, pixels, threads, repeats, warmup):
    runs = {
        name: targets.TARGETS[target].open(path, threads)
        for name, (target, path) in files.items()
    }
    rows = []
    for batch in pixels:
        calls = {
            name: (lambda run=run, batch=batch: run(batch))
            for name, run in runs.items()
        }
        for name, t in measure.in_turn(calls, repeats=repeats, warmup=warmup).items():
            row = {"threads": threads, "batch": len(batch), "n": t.n}
            row |= {"median": t.median_ms, "low": t.low_ms, "high": t.high_ms}
            row["cpu"] = t.cpu_ms
            rows.append((name, row))
    return rows


def _memory(target, path, pixels):
    kind = targets.TARGETS[target]
    for package in kind.packages or ("jax",):
        importlib.import_module(package)
    before = measure.memory("VmRSS")
    kind.open(path, 1)(pixels)
    peak = measure.memory("VmHWM")
    return None if before is None or peak is None else peak - before
