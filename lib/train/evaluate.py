"""Metrics over a whole split, every example counted once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lib.data import pipeline, splits
from lib.objectives import metrics
from lib.train.step import Network

Evaluate = Callable[[Any, Any, Any, splits.Split], dict[str, float]]


def make(network: Network, prepare: Callable, batch_size: int) -> Evaluate:
    """Returns (params, variables, ranges, split) -> {"accuracy", "loss", "count"}.

    Args:
      network: the model, with its activation rules.
      prepare: (None, raw batch) -> batch, without augmentation.
      batch_size: examples a call; the last batch is padded with weight 0.
    """

    @jax.jit
    def sums(params, variables, ranges, raw):
        batch = prepare(None, raw)
        outputs, _ = network(params, variables, ranges, batch["input"])
        return metrics.classification(outputs, batch)

    def evaluate(params, variables, ranges, split):
        batches = pipeline.eval_batches(split, batch_size, cut=True)
        parts = [sums(params, variables, ranges, raw) for raw in batches]
        # float64 on the host: counts stay exact however large the split.
        total = {
            k: float(np.sum([np.asarray(p[k]) for p in parts], dtype=np.float64))
            for k in parts[0]
        }
        count = total["count"]
        return {
            "accuracy": total["correct"] / count,
            "loss": total["loss"] / count,
            "count": int(count),
        }

    return evaluate
