"""Techniques on weights. To add one: a file here, a line in `TECHNIQUES`, a config."""

from lib.transforms.base import (
    KERNELS,
    Signals,
    Transform,
    chain,
    identity,
    on_leaves,
    plan,
    select,
)
from lib.transforms.prune import prune
from lib.transforms.quantize import quantize

TECHNIQUES = {"prune": prune, "quantize": quantize}

__all__ = [
    "KERNELS",
    "TECHNIQUES",
    "Signals",
    "Transform",
    "chain",
    "identity",
    "on_leaves",
    "plan",
    "prune",
    "quantize",
    "select",
]
