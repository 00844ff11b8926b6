"""Does a classifier overfit? Learning curves, bias and variance, and what to try.

On the digits (Alpaydin & Kaynak 1998). Bias and variance of the squared loss (Geman
1992) and of the 0-1 loss (Domingos 2000) over bootstraps, along ladders of widths,
penalties, dropout rates and compression. About two minutes on 2 CPU cores.

    python run.py --config=configs/diagnose.py --workdir=/tmp/diagnosis
    python run.py --config=configs/diagnose.py:noisy --workdir=/tmp/noisy
    python run.py --config=configs/diagnose.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.dense.model.dropout=0.3   (as a verdict advises)
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds."""
    config = common.smoke(config)
    config.diagnose.fractions = (0.5, 1.0)
    config.diagnose.seeds = (0,)
    config.diagnose.sizes = ("dense.model.widths", ((64,), (8,)))
    config.diagnose.ladders = (("dense.weight_decay", (0.0, 0.1)),)
    config.diagnose.bootstraps = 2
    return config


def noisy(config):
    """A third of the labels are wrong, and what is too large learns them.

    The best width and the best penalty are in the middle of their ladders.
    """
    config.diagnose.wrong_labels = 0.33
    config.diagnose.thresholds.train_error = 0.38  # more than the labels explain
    config.dense.steps = 2000
    config.diagnose.ladders = config.diagnose.ladders[:2]
    return config


def get_config(arg=""):
    config = common.base(experiment="diagnose", stages=("dense",))
    config.dense = common.stage(
        model=common.model("mlp", widths=(64,), dropout=0.0), steps=800
    )
    widths = ((1,), (2,), (4,), (8,), (16,), (64,), (256,))
    squeezed = ("prune", "quantize")
    with config.unlocked():
        config.diagnose = ConfigDict(
            dict(
                stage="dense",
                fractions=(0.05, 0.1, 0.2, 0.5, 1.0),  # of the training examples
                seeds=(0, 1, 2),
                sizes=("dense.model.widths", widths),  # the setting that makes the
                # model larger, and values; the stage's own is one of them
                ladders=(  # (setting, values): bias and variance of each
                    ("dense.model.widths", widths),
                    ("dense.weight_decay", (0.0, 0.1, 1.0, 3.0, 10.0)),
                    ("dense.model.dropout", (0.0, 0.2, 0.5, 0.8, 0.95)),
                    ("dense.transforms", ((), ("quantize",), ("prune",), squeezed)),
                ),
                bootstraps=16,  # models of each value
                thresholds=dict(
                    train_error=0.05,  # underfits above, if the larger part;
                    # above what noise in the labels explains
                    gap=0.02,  # between training and validation error
                    gain=0.15,  # of the error, by the last doubling of the data
                    margin=0.005,  # within which two errors are as good
                ),
                wrong_labels=0.0,  # share of the labels made wrong at random, to see
                # what noise does; bias and variance are against the true ones
                form="auto",  # of the runs; or "sequential", "vmapped", "sharded"
                together=64,  # runs in a call
            )
        )
    config.lock()
    return common.variant(arg, config, noisy=noisy, smoke=smoke)
