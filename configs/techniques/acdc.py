"""AC/DC on the digits: sparse and dense phases take turns, 95 % sparse at the end.

Peste et al. 2021 (arXiv 2106.12379).

Expect, on 2 CPU cores (AMD EPYC), in 20 s (1 seed, 360 test images): dense 98.89 %,
AC/DC 98.61 %, 11.2 kB, 15.0 times smaller. Ranked globally it is 94.44 %.

    python run.py --config=configs/techniques/acdc.py --workdir=/tmp/acdc
    python run.py --config=configs/techniques/acdc.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.acdc.period=50 --config.acdc.distribution=global
"""

from configs import common


def smoke(config):
    config.acdc.period = 4
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.acdc.sparsity = 0.95
    config.acdc.distribution = "erk"
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=2000)
    config.compressed = common.stage(
        model=model, transforms=("acdc",), steps=3000, learning_rate=2e-3
    )
    return common.variant(arg, config, smoke=smoke)
