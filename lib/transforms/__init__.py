"""Techniques on weights. To add one: a file here, a line in `TECHNIQUES`, a config."""

from lib.transforms.base import (
    KERNELS,
    Row,
    Signals,
    Transform,
    chain,
    identity,
    on_leaves,
    plan,
    select,
)
from lib.transforms.prune import keep, prune
from lib.transforms.quantize import quantize

TECHNIQUES = {"keep": keep, "prune": prune, "quantize": quantize}

# The argument of a technique that a config may give a schedule.
STRENGTHS = {"prune": "sparsity", "quantize": "bits"}

__all__ = [
    "KERNELS",
    "STRENGTHS",
    "TECHNIQUES",
    "Row",
    "Signals",
    "Transform",
    "chain",
    "identity",
    "keep",
    "on_leaves",
    "plan",
    "prune",
    "quantize",
    "select",
]
