"""Tucker-2 on the digits: a CNN's convolutions become 1x1, a small core and 1x1.

Kim et al. 2016 (arXiv 1511.06530), with ranks by energy instead of VBMF; `:cp` is CP by
alternating least squares (Lebedev et al. 2015, arXiv 1412.6553).

Expect, on 2 busy CPU cores (AMD EPYC), in 1 to 3 minutes (1 seed, 360 test images):
dense 99.44 % and 65.6 kB with 19.6k weights; packed 99.44 %, 45.8 kB, 13.5k weights,
0.69 of the multiplications; `:cp` 99.17 %, 10.0 kB, 2.8k weights, 0.14 of them.

    python run.py --config=configs/techniques/tucker.py --workdir=/tmp/tucker
    python run.py --config=configs/techniques/tucker.py:cp --workdir=/tmp/cp
    python run.py --config=configs/techniques/tucker.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.tucker.energy=0.8
"""

from configs import common


def smoke(config):
    """Shrinks the model too: convolutions take long to compile."""
    config.dense.model.widths = (8, 16)
    return common.smoke(config)


def cp(config):
    """One vector for each axis and rank, in the layers with many channels."""
    config.compressed.transforms = ("cp",)
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    # The first convolution sees one channel: there is nothing to factorize.
    config.tucker.pattern = config.cp.pattern = r"conv_1_0/kernel(/|$)"
    config.dense = common.stage(
        model=common.model("cnn", widths=(32, 64), depth=1, dropout=0.0),
        steps=600,
        learning_rate=3e-3,
    )
    config.compressed = common.stage(start="dense", transforms=("tucker",), steps=300)
    return common.variant(arg, config, smoke=smoke, cp=cp)
