"""Latency of a call, and the machine that it was measured on."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors


class Latency(NamedTuple):
    """Time of one call in milliseconds: median and quartiles of `n`.

    Attributes:
      median_ms, low_ms, high_ms: by the wall clock.
      n: calls.
      cpu_ms: median of the CPU time of the process, all its threads. Other programs
        cannot take it away, though they take caches and the clock rate.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    n: int
    cpu_ms: float


def latency(f: Callable[..., Any], *args: Any, repeats: int, warmup: int) -> Latency:
    """Times `f(*args)`, waiting for the arguments first and for each result.

    Args:
      f: the function as it will be served, jitted already.
      *args: what it is called with. They are used again: `f` must not donate them.
      repeats: timed calls, at least 1.
      warmup: calls before these, not timed; 1 or more keeps compilation out.
    """
    jax.block_until_ready(args)
    return in_turn({"": lambda: f(*args)}, repeats=repeats, warmup=warmup)[""]


def in_turn(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int, warmup: int
) -> dict[str, Latency]:
    """Times several calls in turn, so that other load hits them alike.

    Args:
      calls: name -> call; its result is waited for.
      repeats: timed rounds, at least 1.
      warmup: rounds before these, not timed.
    """
    if repeats < 1 or warmup < 0:
        raise errors.UserError(
            f"latency takes repeats >= 1 and warmup >= 0, got {repeats} and {warmup}"
        )
    times: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            start, busy = time.perf_counter_ns(), time.process_time_ns()
            jax.block_until_ready(call())
            busy, end = time.process_time_ns() - busy, time.perf_counter_ns()
            if turn >= warmup:
                times[name].append((end - start) / 1e6)
                cpu[name].append(busy / 1e6)
    found = {}
    for name, taken in times.items():
        low, median, high = np.percentile(taken, [25, 50, 75]).tolist()
        busy = float(np.median(cpu[name]))
        found[name] = Latency(median, low, high, repeats, busy)
    return found


def memory(field: str) -> int | None:
    """Returns bytes of memory of this process; None where the system does not tell.

    Args:
      field: "VmRSS", what it holds now, or "VmHWM", the most that it has held.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(f"{field}:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass  # no Linux
    return None


def _cpu() -> str:
    """Returns the name of the processor, as well as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def load() -> tuple[float, ...]:
    """Returns how many processes wanted to run in the last 1, 5 and 15 minutes.

    Times that were taken while there were more than cores say little; () where the
    system does not tell.
    """
    return os.getloadavg() if hasattr(os, "getloadavg") else ()


def environment() -> dict[str, Any]:
    """Returns versions and hardware, for results to carry; all of it fits JSON.

    `cores` are those that this process may use, not those that the machine has.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "python": platform.python_version(),
        **{
            name: importlib.metadata.version(name)
            for name in ("jax", "jaxlib", "flax", "numpy")
        },
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }
