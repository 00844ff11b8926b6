"""Pruned before training, by one look at the data: SNIP, GraSP, SynFlow on the digits.

Lee et al. 2019, "SNIP" (arXiv 1810.02340); variant `grasp`: Wang et al. 2020
(2002.07376); variant `synflow`, which looks at no data: Tanaka et al. 2020
(2006.05467).

Expect, on 2 CPU cores (AMD EPYC), in 17 s of CPU time (1 seed, 360 test images), at
95 % sparsity of an MLP of 50,200 weights: dense 98.9 %, SNIP 97.2 %, GraSP 95.6 %,
SynFlow 98.1 %; files 15 to 17 times smaller.

    python run.py --config=configs/techniques/snip.py --workdir=/tmp/snip
    python run.py --config=configs/techniques/snip.py:grasp --workdir=/tmp/grasp
    python run.py --config=configs/techniques/snip.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.prune.sparsity=0.98
"""

from configs import common


def grasp(config):
    config.prune.score = "grasp"
    return config


def synflow(config):
    config.prune.score = "synflow"
    return config


def smoke(config):
    for name in config.stages:
        config[name].model.widths = (32, 16)
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.prune.update(
        dict(score="snip", sparsity=0.95, distribution="global", schedule="")
    )
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=2000)
    # From scratch: no dense weights are ever trained.
    config.compressed = common.stage(model=model, transforms=("prune",), steps=2000)
    variants = dict(grasp=grasp, synflow=synflow, smoke=smoke)
    return common.variant(arg, config, **variants)
