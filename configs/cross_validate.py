"""Cross-validation of a classifier: 5 folds, twice, trained side by side.

Stratified, over the training and validation examples of the digits (Alpaydin & Kaynak
1998). The interval is that of Nadeau & Bengio 2003 (Machine Learning 52).

    python run.py --config=configs/cross_validate.py --workdir=/tmp/folds
    python run.py --config=configs/cross_validate.py:nested --workdir=/tmp/nested
    python run.py --config=configs/cross_validate.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.cross_validate.folds=10 --config.dense.weight_decay=0.1
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: one repeat of three folds."""
    config = common.smoke(config)
    config.cross_validate.folds = 3
    config.cross_validate.repeats = 1
    return config


def nested(config):
    """Each fold chooses its own widths, learning rate and dropout, by inner folds."""
    config.cross_validate.search = (
        ("dense.learning_rate", (1e-3, 3e-3, 1e-2)),
        ("dense.model.dropout", (0.0, 0.3)),
        ("dense.model.widths", ((32,), (64, 32))),
    )
    config.cross_validate.repeats = 1
    return config


def get_config(arg=""):
    config = common.base(experiment="cross_validate", stages=("dense",))
    config.dense = common.stage(
        model=common.model("mlp", widths=(64, 32), dropout=0.0), steps=1000
    )
    with config.unlocked():
        config.cross_validate = ConfigDict(
            dict(
                stage="dense",
                folds=5,
                repeats=2,
                stratified=True,  # each fold has the classes in proportion
                confidence=0.95,  # of the interval
                search=(),  # rows (field, values): each fold chooses its own settings
                inner=3,  # by so many folds inside it
                form="auto",  # of the runs; or "sequential", "vmapped", "sharded"
                together=64,  # runs in a call
            )
        )
    config.lock()
    return common.variant(arg, config, nested=nested, smoke=smoke)
