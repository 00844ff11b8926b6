"""Who got worse by compression: classes, examples, calibration, two paired tests.

On the validation examples of a finished run: flips at equal accuracy (Hooker 2019,
arXiv 1911.05248), calibration error (Guo 2017, 1706.04599), McNemar's exact test and a
bootstrap interval.

    python run.py --config=configs/damage.py --workdir=/tmp/damage \
        --config.run=/tmp/quickstart --config.dense=teacher \
        --config.compressed=quantized
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: fewer bootstraps."""
    config.samples = 100
    return config


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="damage",
            xla_flags="",
            seed=0,  # of the bootstraps
            run="",  # the folder of a finished run
            dense="",  # the name of the stage that is compared with
            compressed="",  # the name of the stage that is compared
            bins=15,  # of the calibration error
            confidence=0.95,  # of the interval
            samples=2000,  # bootstraps of the interval
            worst=20,  # examples that are named: places in the validation split
            eval_batch_size=256,
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
