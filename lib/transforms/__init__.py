"""Techniques on weights. To add one: a file here, a line in `TECHNIQUES`, a config."""

from lib.transforms.base import (
    KERNELS,
    Row,
    Signals,
    Transform,
    identity,
    on_leaves,
    outline,
    plan,
    renew,
    sample,
)
from lib.transforms.chain import chain
from lib.transforms.prune import keep, prune
from lib.transforms.quantize import quantize
from lib.transforms.select import select

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
    "outline",
    "plan",
    "prune",
    "quantize",
    "renew",
    "sample",
    "select",
]
