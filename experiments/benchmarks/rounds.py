"""Side by side: every contender takes its turn in every round, in rotating order."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import contenders


class Times(NamedTuple):
    """One contender's milliseconds a step, one number a round.

    Attributes:
      wall: by the clock.
      cpu: of this process, over all its threads.
      losses: the training loss at the end of each round, warm-up rounds too.
    """

    wall: np.ndarray
    cpu: np.ndarray
    losses: np.ndarray


class Spread(NamedTuple):
    """Median and quartiles of `n` numbers."""

    median: float
    low: float
    high: float
    n: int


def spread(values: np.ndarray) -> Spread:
    """Returns median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high), len(values))


def compare(
    field: Mapping[str, contenders.Contender],
    *,
    rounds: int,
    warmup: int,
    calls: int,
    call: int,
    batch_size: int,
    examples: int,
    seed: int,
) -> dict[str, Times]:
    """Times the contenders, all on the same batches.

    Args:
      field: name -> contender; their states are used up.
      rounds: that are timed.
      warmup: rounds before these, in which all is compiled.
      calls: compiled calls of each contender in a round.
      call: steps of one compiled call.
      batch_size: examples a step.
      examples: that batches are drawn from.
      seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    names = list(field)
    states = {name: contender.state for name, contender in field.items()}
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(warmup + rounds):
        shape = (calls, call, batch_size)
        indices = rng.integers(0, examples, shape, dtype=np.int32)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            run, state = field[name].run, states[name]
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            for index in indices:
                state, metrics = run(state, index)
            jax.block_until_ready((state, metrics))
            cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
            states[name] = state
            per_step = 1e6 * calls * call
            loss = float(metrics["loss"][-1])
            found[name].append((wall / per_step, cpu / per_step, loss))
    table = {name: np.asarray(rows).T for name, rows in found.items()}
    return {n: Times(t[0][warmup:], t[1][warmup:], t[2]) for n, t in table.items()}
