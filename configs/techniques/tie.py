"""ALBERT's cross-layer sharing: a transformer whose blocks are one block.

Lan et al. 2020 (arXiv 1909.11942), section 3.1 and table 4: all parameters of the
blocks shared, only those of the attention, only the feed-forward ones, or groups of
consecutive blocks. Both stages train from scratch, for as long: "dense" has blocks of
its own, "compressed" shares them. Data: scikit-learn's handwritten digits.

Expect, on 2 CPU cores (AMD EPYC), 1 seed, 360 test images:

    of its own     97.78 %   77,434 weights   257.5 kB
    all shared     98.06 %   20,554 weights    68.7 kB: 3.75 times smaller
    attention      96.67 %   49,210 weights   163.7 kB
    feed_forward   97.50 %   49,354 weights   164.4 kB
    groups         98.61 %   39,514 weights   131.7 kB

One image is 0.28 points: none of this tells the variants apart. Sharing saves weights,
no multiplications.

    python run.py --config=configs/techniques/tie.py --workdir=/tmp/tie
    python run.py --config=configs/techniques/tie.py:attention --workdir=/tmp/attention
    python run.py --config=configs/techniques/tie.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def attention(config):
    """Shares the four projections of the attention."""
    config.tie.pattern = "/attention/"
    return config


def feed_forward(config):
    """Shares the two layers after the attention."""
    config.tie.pattern = r"/dense_\d/"
    return config


def groups(config):
    """Shares blocks 0 and 1, and blocks 2 and 3."""
    config.tie.every = 2
    return config


def smoke(config):
    """Shrinks the model too: attention takes long to compile."""
    for name in config.stages:
        config[name].model.layers = 2
        config[name].model.width = 16
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    for name in config.stages:
        config[name] = common.stage(
            model=common.model(
                "transformer",
                layers=4,
                width=48,
                heads=4,
                expansion=2,
                patch=4,
                dropout=0.1,
            ),
            augment=("shift",),
            steps=1500,
            learning_rate=3e-3,
            weight_decay=0.01,
            ema=0.99,
        )
    config.compressed.transforms = ("tie",)
    return common.variant(
        arg,
        config,
        attention=attention,
        feed_forward=feed_forward,
        groups=groups,
        smoke=smoke,
    )
