"""A result, curves, layers and coverage with small, exact numbers."""

import numpy as np

from lib import representations as reps
from lib.report import layers


def latency(median, batch=64):
    return {
        "median": median,
        "low": median * 0.9,
        "high": median * 1.1,
        "n": 30,
        "batch": batch,
    }


def stage(name, accuracy, params, nonzero, file_bytes, macs, milliseconds):
    return {
        "name": name,
        "steps": 100,
        "seconds": 2.5,
        "metrics": {"accuracy": accuracy, "validation_accuracy": accuracy},
        "size": {
            "params": params,
            "nonzero": nonzero,
            "file_bytes": file_bytes,
            "macs": macs,
        },
        "latency_ms": latency(milliseconds),
    }


def result(names=("teacher", "student", "prune")):
    sizes = [
        (0.975, 266_610, 266_610, 1_066_440, 266_200, 0.8),
        (0.970, 50_000, 50_000, 200_000, 49_800, 0.4),
        (0.965, 50_000, 5_000, 200_000, 49_800, 0.5),
    ]
    return {
        "experiment": "compress",
        "config": {"seed": 0, "prune": {"sparsity": 0.9}, "stages": list(names)},
        "environment": {"python": "3.11", "jax": "0.10.2"},
        "stages": [stage(n, *s) for n, s in zip(names, sizes, strict=True)],
        "artifacts": {
            "packed": {
                "path": "artifacts/model.pare",
                "bytes": 19_390,
                "accuracy": 0.9722,
                "size": {"params": 50_000, "nonzero": 5_000, "macs": 49_800},
                "latency_ms": latency(0.8),
            }
        },
    }


def curves(names=("teacher", "student", "prune")):
    return {
        name: [
            {
                "stage": name,
                "step": step,
                "loss": 2.0 / step,
                "accuracy": 1 - 0.5 / step,
            }
            for step in range(1, 300, 3)
        ]
        for name in names
    }


def described(paths=("hidden/kernel", "head/kernel")):
    rng = np.random.default_rng(0)
    frozen, dense = {}, {}
    for path in paths:
        w = rng.normal(size=(8, 10)).astype(np.float32)
        codes = np.clip(np.round(w * 2), -7, 7).astype(np.int8)
        four = reps.Quantized(codes, np.float32(0.5), None, 4)
        outer, inner = path.split("/")
        frozen[outer] = {inner: reps.sparse(np.abs(w) > 1, four), "bias": w[0]}
        dense[outer] = {inner: w}
    return layers.describe(frozen, dense)


def coverage():
    return {
        "weights": [
            {"path": "hidden/kernel", "shape": [8, 10], "taken_by": ["prune: kernel$"]},
            {"path": "hidden/bias", "shape": [10], "taken_by": []},
        ],
        "sites": [
            {
                "site": "hidden",
                "weight": "hidden/kernel",
                "weight_taken_by": "prune: kernel$",
                "operand": "lhs",
                "taken_by": "activations",
                "bits": 8,
                "why": None,
            },
            {
                "site": "head",
                "weight": "",
                "weight_taken_by": "",
                "operand": "lhs",
                "taken_by": None,
                "bits": None,
                "why": "inside a custom_vjp",
            },
        ],
    }
