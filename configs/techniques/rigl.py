"""RigL on the digits: 98 % sparse from the first step to the last.

Evci et al. 2020, "Rigging the Lottery" (arXiv 1911.11134); variant `set`: sparse
evolutionary training, Mocanu et al. 2018 (1707.04780), which grows at random; variant
`static`: the first random masks stay.

Expect, on 2 CPU cores (AMD EPYC), in 25 s (1 seed, 360 test images): dense 98.89 %,
RigL 98.06 %, 5.0 kB, 33.3 times smaller; set 96.67 %, static 90.56 %. At 95 % sparsity
the three are within two images of each other: 98.33 %, 98.06 % and 98.61 %.

    python run.py --config=configs/techniques/rigl.py --workdir=/tmp/rigl
    python run.py --config=configs/techniques/rigl.py:set --workdir=/tmp/set
    python run.py --config=configs/techniques/rigl.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.rigl.sparsity=0.95
"""

from configs import common


def evolution(config):
    config.compressed.transforms = ("set",)
    return config


def static(config):
    config.rigl.end = 0.0
    return config


def smoke(config):
    config.rigl.every = 5
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    for name in ("rigl", "set"):
        config[name].sparsity = 0.98
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0), steps=2000
    )
    # From scratch: no dense weights are ever trained.
    config.compressed = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        transforms=("rigl",),
        steps=4000,
        learning_rate=3e-3,
    )
    return common.variant(arg, config, set=evolution, static=static, smoke=smoke)
