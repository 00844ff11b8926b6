"""Techniques on weights. To add one: a file here, a line in `TECHNIQUES`, a config."""

from lib.transforms.acdc import acdc
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
from lib.transforms.cp import cp
from lib.transforms.factorize import factorize
from lib.transforms.fixed import fixed
from lib.transforms.l0 import l0
from lib.transforms.lora import lora
from lib.transforms.product import product
from lib.transforms.proximal import proximal
from lib.transforms.prune import keep, prune
from lib.transforms.quantize import quantize
from lib.transforms.rigl import rigl
from lib.transforms.select import select
from lib.transforms.share import share
from lib.transforms.soft_movement import soft_movement
from lib.transforms.soft_share import soft_share
from lib.transforms.sparse_evolution import set_
from lib.transforms.sparsegpt import sparsegpt
from lib.transforms.straight_through import sr_ste, ste
from lib.transforms.tie import tie
from lib.transforms.tucker import tucker
from lib.transforms.variational import variational

TECHNIQUES = {
    "keep": keep,
    "prune": prune,
    "soft_movement": soft_movement,
    "quantize": quantize,
    "acdc": acdc,
    "rigl": rigl,
    "set": set_,
    "sr_ste": sr_ste,
    "ste": ste,
    "sparsegpt": sparsegpt,
    "fixed": fixed,
    "tie": tie,
    "l0": l0,
    "proximal": proximal,
    "soft_share": soft_share,
    "variational": variational,
    "share": share,
    "product": product,
    "factorize": factorize,
    "tucker": tucker,
    "cp": cp,
    "lora": lora,
}

# The argument of a technique that a config may give a schedule.
STRENGTHS = {
    "prune": "sparsity",
    "quantize": "bits",
    "ste": "sparsity",
    "l0": "strength",
    "proximal": "strength",
    "soft_share": "strength",
    "variational": "strength",
}

# The argument of a technique that a config's `rules` may give for each pattern.
RULED = {
    "prune": "sparsity",
    "quantize": "bits",
    "rigl": "sparsity",
    "share": "bits",
    "ste": "sparsity",
}

__all__ = [
    "KERNELS",
    "RULED",
    "STRENGTHS",
    "TECHNIQUES",
    "Row",
    "Signals",
    "Transform",
    "acdc",
    "chain",
    "cp",
    "factorize",
    "fixed",
    "identity",
    "keep",
    "lora",
    "on_leaves",
    "outline",
    "plan",
    "product",
    "prune",
    "quantize",
    "renew",
    "rigl",
    "sample",
    "select",
    "share",
    "set_",
    "soft_movement",
    "sparsegpt",
    "sr_ste",
    "ste",
    "tie",
    "tucker",
    "l0",
    "proximal",
    "soft_share",
    "variational",
]
