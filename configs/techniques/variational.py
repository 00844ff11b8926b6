"""Sparse variational dropout on the digits: a variance for every weight.

Paper: Molchanov et al. 2017 (arXiv 1701.05369).

Expect, on 2 CPU cores (AMD EPYC), in 75 s beside other work (1 seed, 360 test
images): dense 99.44 %, packed 98.06 % with 632 of 50,826 weights, 2.4 kB, 68.9
times smaller.

    python run.py --config=configs/techniques/variational.py --workdir=/tmp/variational
    python run.py --config=configs/techniques/variational.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0),
        augment=("shift",),
        steps=1500,
        weight_decay=0.01,
    )
    config.compressed = common.stage(
        start="dense",
        transforms=("variational",),
        steps=3000,
        learning_rate=3e-3,
    )
    return common.variant(arg, config, smoke=common.smoke)
