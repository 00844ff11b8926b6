"""Pruning an MLP on the digits to 10 % of its weights, by each score and shape.

Schedule: Zhu & Gupta 2017 (arXiv 1710.01878). Scores: magnitude, Han 2015 (1506.02626);
taylor, Molchanov 2016 (1611.06440); movement and soft movement, Sanh 2020 (2005.07683);
fisher, LeCun 1990. Distributions: lamp, Lee 2021 (2010.07611). Shapes: nm, 2:4, Mishra
2021 (2104.08378). Rewinding: Frankle & Carbin 2019 (1803.03635).

Expect, on 2 CPU cores (AMD EPYC), in 1 to 3 minutes each (1 seed, 360 test images, of
which one is 0.28 points): dense 99.44 %, and with 90 % of the weights removed

    magnitude  99.17    erk     99.17    soft (96 % removed)            98.61
    taylor     98.89    lamp    99.17    block (4 inputs x 1 output)    98.61
    fisher     98.61    global  98.89    channel (88 % of all weights)  98.06
    movement   98.61    output  98.89    nm (50 % removed)              99.44
    random     95.83                     rewind (from fresh weights)    99.17

    python run.py --config=configs/techniques/prune.py --workdir=/tmp/prune
    python run.py --config=configs/techniques/prune.py:movement --workdir=/tmp/movement
    python run.py --config=configs/techniques/prune.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def prune(**settings):
    """Returns the variant with these settings of pruning."""

    def change(config):
        config.prune.update(settings)
        return config

    return change


def rewind(config):
    """Eleven rounds from fresh weights, each of which starts over from them."""
    config.prune.update(
        dict(rewind=True, schedule="staircase", distribution="global", end=0.9)
    )
    config.compressed.start = ""
    config.compressed.steps = 6000
    config.compressed.decay = "constant"
    return config


def soft(config):
    config.compressed.transforms = ("soft_movement",)
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=1500)
    config.compressed = common.stage(
        start="dense", model=model, transforms=("prune",), steps=1500
    )
    return common.variant(
        arg,
        config,
        smoke=common.smoke,
        random=prune(score="random"),
        taylor=prune(score="taylor"),
        movement=prune(score="movement"),
        fisher=prune(score="fisher"),
        soft=soft,
        erk=prune(distribution="erk"),
        lamp=prune(distribution="lamp"),
        output=prune(distribution="output"),
        nm=prune(shape="2:4", sparsity=0.5),
        block=prune(shape="4x1"),
        # The outputs of the last layer are the classes: they stay.
        channel=prune(shape="channel", pattern=r"dense_\d+/kernel"),
        rewind=rewind,
        **{"global": prune(distribution="global")},
    )
