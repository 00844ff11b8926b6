"""Pruned after training, without any training more: Wanda on the digits.

Sun et al. 2023, "A simple and effective pruning approach for large language models"
(arXiv 2306.11695): weights times the norms of their inputs, compared within each
output. Variant `magnitude`: the same without the inputs; variant `n_of_m`: 2:4.

Expect, on 2 CPU cores (AMD EPYC), in 18 s of CPU time (1 seed, 360 test images), of an
MLP of 50,200 weights: dense 98.9 %, at 80 % sparsity Wanda 91.9 %, magnitudes 91.1 %
(`sparsegpt.py`: 96.7 %); at 2:4 97.2 %.

    python run.py --config=configs/techniques/wanda.py --workdir=/tmp/wanda
    python run.py --config=configs/techniques/wanda.py:magnitude --workdir=/tmp/other
    python run.py --config=configs/techniques/wanda.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.prune.sparsity=0.5
"""

from configs import common


def magnitude(config):
    config.prune.score = "magnitude"
    return config


def n_of_m(config):
    config.prune.update(dict(shape="2:4", sparsity=0.5, distribution="layerwise"))
    return config


def smoke(config):
    config.dense.model.widths = (32, 16)
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.prune.update(
        dict(score="wanda", sparsity=0.8, distribution="output", schedule="")
    )
    config.prune.batches = 32  # about 1000 images
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0), steps=2000
    )
    # A stage takes a step at least; at the start of a warm-up it moves nothing.
    config.compressed = common.stage(
        start="dense", transforms=("prune",), steps=1, warmup=0.9
    )
    variants = dict(magnitude=magnitude, n_of_m=n_of_m, smoke=smoke)
    return common.variant(arg, config, **variants)
