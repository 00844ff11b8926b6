"""Pruned after training, the rest adjusted, without training: SparseGPT on the digits.

Frantar & Alistarh 2023, "SparseGPT" (arXiv 2301.00774). To compare with `wanda.py` and
its variants, at the same sparsity; variant `n_of_m`: 2:4.

Expect, on 2 CPU cores (AMD EPYC), in 19 s of CPU time (1 seed, 360 test images), of an
MLP of 50,200 weights: dense 98.9 %, at 80 % sparsity 96.7 % (Wanda: 91.9 %); at 2:4
99.2 %.

    python run.py --config=configs/techniques/sparsegpt.py --workdir=/tmp/sparsegpt
    python run.py --config=configs/techniques/sparsegpt.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.sparsegpt.sparsity=0.5
"""

from configs import common


def n_of_m(config):
    config.sparsegpt.update(dict(shape="2:4", sparsity=0.5))
    return config


def smoke(config):
    config.dense.model.widths = (32, 16)
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.sparsegpt.sparsity = 0.8
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0), steps=2000
    )
    # A stage takes a step at least; at the start of a warm-up it moves nothing.
    config.compressed = common.stage(
        start="dense", transforms=("sparsegpt",), steps=1, warmup=0.9
    )
    return common.variant(arg, config, n_of_m=n_of_m, smoke=smoke)
