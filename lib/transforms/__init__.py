"""Techniques on weights. To add one: a file here, a line in `TECHNIQUES`, a config."""

from lib.transforms.acdc import acdc
from lib.transforms.adaround import adaround
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
from lib.transforms.binary_connect import binary_connect
from lib.transforms.chain import chain
from lib.transforms.cp import cp
from lib.transforms.dorefa import dorefa
from lib.transforms.factorize import factorize
from lib.transforms.fixed import fixed
from lib.transforms.gptq import gptq
from lib.transforms.l0 import l0
from lib.transforms.levels import levels
from lib.transforms.lora import lora
from lib.transforms.lsq import lsq
from lib.transforms.product import product
from lib.transforms.proximal import proximal
from lib.transforms.prune import keep, prune
from lib.transforms.quantize import quantize
from lib.transforms.rigl import rigl
from lib.transforms.select import select
from lib.transforms.share import cluster, share
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
    "levels": levels,
    "binary_connect": binary_connect,
    "lsq": lsq,
    "dorefa": dorefa,
    "acdc": acdc,
    "rigl": rigl,
    "set": set_,
    "sr_ste": sr_ste,
    "ste": ste,
    "sparsegpt": sparsegpt,
    "gptq": gptq,
    "adaround": adaround,
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
    "levels": "format",
    "prune": "sparsity",
    "dorefa": "bits",
    "lsq": "bits",
    "quantize": "bits",
    "factorize": "rank",
    "gptq": "bits",
    "adaround": "bits",
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
    "binary_connect",
    "chain",
    "cluster",
    "cp",
    "dorefa",
    "factorize",
    "fixed",
    "gptq",
    "identity",
    "keep",
    "levels",
    "lora",
    "lsq",
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
