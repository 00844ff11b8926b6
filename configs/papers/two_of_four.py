"""2:4 sparsity by SR-STE (Zhou 2021, arXiv 2102.04010) on LeNet-300-100.

Of every four neighbours along a layer's inputs the two largest stay, at every step;
those that go decay (lambda 2e-4) and may come back. The paper's tables are ImageNet's
(ResNet-50 77.0 % for 77.3 % dense); here: no more than 0.2 points above dense.

    python run.py --config=configs/papers/two_of_four.py --workdir=/tmp/nm
    python run.py --config=configs/papers/two_of_four.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers


def smoke(config):
    """Shrinks to seconds."""
    for stage in (config.dense, config.sparse):
        stage.model.widths = (64, 32)
    return papers.digits(common.smoke(config))


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "sparse")))
    config.sr_ste.n = 2
    config.sr_ste.m = 4
    config.sr_ste.decay = 2e-4
    settings = dict(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        optimizer="sgd",
        batch_size=64,
        weight_decay=5e-4,
        warmup=0.0,
        steps=17_200,  # 20 epochs
        learning_rate=0.05,
    )
    config.dense = common.stage(**settings)
    config.sparse = common.stage(transforms=("sr_ste",), **settings)
    config = papers.attach(
        config,
        paper="2:4 by SR-STE, LeNet-300-100 (after 2102.04010)",
        says="within 0.2 points of dense (1.6 % as in 1510.00149)",
        error=1.64,
        within=0.2,
        dense="dense",
        stage="sparse",
        differs="MNIST instead of ImageNet: no number of the paper's is claimed",
    )
    return common.variant(arg, config, smoke=smoke)
