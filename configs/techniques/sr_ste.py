"""2:4 sparsity from scratch on the digits: masked forward, straight-through backward.

Zhou et al. 2021 (arXiv 2102.04010); variant `ste`: any pattern, 95 % of the weights
masked in the forward pass (Bengio et al. 2013, 1308.3432).

Expect, on 2 CPU cores (AMD EPYC), in 20 s (1 seed, 360 test images): dense 98.89 %,
2:4 99.44 %, 86.4 kB, 1.9 times smaller; ste at 95 % sparsity 98.06 %.

    python run.py --config=configs/techniques/sr_ste.py --workdir=/tmp/sr_ste
    python run.py --config=configs/techniques/sr_ste.py:ste --workdir=/tmp/ste
    python run.py --config=configs/techniques/sr_ste.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.sr_ste.n=1 --config.sr_ste.decay=0.0
"""

from configs import common


def ste(config):
    config.ste.sparsity = 0.95
    config.compressed.transforms = ("ste",)
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=2000)
    config.compressed = common.stage(
        model=model, transforms=("sr_ste",), steps=3000, learning_rate=2e-3
    )
    return common.variant(arg, config, ste=ste, smoke=common.smoke)
