"""RigL (Evci 2020, arXiv 1911.11134, appendix B): LeNet-300-100 trained sparse.

99 % and 89 % of the first two layers are missing from the start and move while it
trains; the last layer is dense. Neurons that lose all their weights die: the paper
ends with 408-100-69, 1.44 % error (1.48 % at the last step) and 31,914 bytes.

    python run.py --config=configs/papers/rigl.py --workdir=/tmp/rigl
    python run.py --config=configs/papers/rigl.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers


def smoke(config):
    """Shrinks to seconds."""
    for stage in (config.dense, config.sparse):
        stage.model.widths = (64, 32)
    config = papers.digits(common.smoke(config))
    config.rigl.every = 5
    return config


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "sparse")))
    config.data.validation_fraction = 1 / 60  # nothing is chosen on it
    config.rigl.rules = (("^dense_0/kernel", 0.99), ("^dense_1/kernel", 0.89))
    config.rigl.distribution = "layerwise"
    config.rigl.fraction = 0.3
    config.rigl.every = 100
    config.rigl.end = 50 / 118  # step 50,000
    settings = dict(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        optimizer="sgd",
        batch_size=100,
        warmup=0.0,
    )
    config.dense = common.stage(
        steps=23_600,  # 40 epochs
        learning_rate=0.1,
        weight_decay=5e-4,
        **settings,
    )
    config.sparse = common.stage(
        transforms=("rigl",),
        steps=118_000,  # 200 epochs
        learning_rate=0.2,
        weight_decay=1e-4,
        **settings,
    )
    config = papers.attach(
        config,
        paper="RigL, LeNet-300-100 (1911.11134, appendix B, table 2)",
        says="1.48 % error at the last step; 408-100-69 neurons; 31,914 bytes",
        error=1.48,
        ratio=33.4,  # 1,066,440 bytes of float32 over 31,914
        within=0.30,
        dense="dense",
        stage="sparse",
        differs="cosine decay instead of steps; no Nesterov; 59,000 training images "
        "instead of 60,000; neurons are counted, not cut; our file entropy-codes the "
        "positions, theirs is values and a bitmap",
    )
    return common.variant(arg, config, smoke=smoke)
