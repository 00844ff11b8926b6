"""Uneven grids on the digits: an MLP in binary, ternary, floats, powers of two, NF4.

Formats: XNOR-Net's binary (arXiv 1603.05279), TWN's ternary (1605.04711), QLoRA's NF4
(2305.14314), 8-bit floats (2209.05433), INQ's powers of two (1702.03044), APoT
(1909.13144). Each is trained from the dense weights, straight through.

Expect, on 2 CPU cores (AMD EPYC), in a minute (1 seed, 360 test images; one image is
0.28 %): dense 99.44 % in 167.8 kB, NF4 99.17 % in 27.1 kB, 6.2 times smaller. Of the
variants:

    binary    99.17 %   9.0 kB   -1 and 1 times each output's mean magnitude
    ternary   99.17 %  11.4 kB   41 % of the weights are 0
    pow2      99.17 %  20.5 kB   9 levels, weights are powers of two
    apot      98.89 %  26.6 kB
    e2m1      99.17 %  63.1 kB   a float32 scale for each 4 weights
    e4m3      99.17 %  44.3 kB
    mixed     98.61 %  14.1 kB   ternary, the last layer in e4m3

    python run.py --config=configs/techniques/levels.py --workdir=/tmp/nf4
    python run.py --config=configs/techniques/levels.py:binary --workdir=/tmp/binary
    python run.py --config=configs/techniques/levels.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def levels(**settings):
    """Returns the variant with these settings of the format."""

    def change(config):
        config.levels.update(settings)
        return config

    return change


def mixed(config):
    """Two bits where most weights are, eight in the last layer."""
    config.levels.rules = (("^dense", "ternary"), ("^logits/kernel", "e4m3"))
    config.levels.scale = "mse"
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=1500)
    config.compressed = common.stage(
        start="dense", model=model, transforms=("levels",), steps=1000
    )
    return common.variant(
        arg,
        config,
        smoke=common.smoke,
        mixed=mixed,
        binary=levels(format="binary", scale="mean"),
        ternary=levels(format="ternary", scale="twn", granularity="tensor"),
        pow2=levels(format="pow2_4", scale="power"),
        apot=levels(format="apot_4", scale="mse"),
        e2m1=levels(format="e2m1", granularity="group", group=4),
        e4m3=levels(format="e4m3"),
        e5m2=levels(format="e5m2"),
    )
