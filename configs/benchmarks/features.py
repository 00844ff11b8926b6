"""How many features of a table an MLP needs: its accuracy against their number.

The network of configs/tabular.py is trained on the 2 to 30 best of the 30 features of
scikit-learn's breast_cancer, as the lasso ranks them on the training part (Tibshirani
1996). The number is chosen on validation data.

    python run.py --config=configs/benchmarks/features.py --workdir=/tmp/features
    python run.py --config=configs/benchmarks/features.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.data.table.select=mutual_information   (or rfe, variance)
"""

from ml_collections import ConfigDict

from configs import common, tabular


def smoke(config):
    """Shrinks to seconds: two numbers, one seed."""
    config = common.smoke(config)
    config.curve.keep = (2, 30)
    config.curve.seeds = (0,)
    return config


def get_config(arg=""):
    config = common.base(experiment="feature_curve", stages=("dense",))
    tabular.of_table(config)
    config.dense = tabular.dense()
    with config.unlocked():
        config.curve = ConfigDict(
            dict(
                keep=(2, 4, 8, 12, 16, 20, 25, 30),  # features, as data.table.keep
                seeds=(0, 1, 2),
            )
        )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
