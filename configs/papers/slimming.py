"""Network Slimming (Liu et al. 2017, arXiv 1708.06519, table 3): an MLP on MNIST.

784-500-300-10 with batch norm, trained with an L1 penalty on the norms' scales; then
the 80 % of each layer's neurons with the least scales are removed, which leaves
784-100-60-10, 84.4 % fewer weights, and the rest is trained as before. The paper:
1.43 % error before, 1.49 % after.

    python run.py --config=configs/papers/slimming.py --workdir=/tmp/slimming
    python run.py --config=configs/papers/slimming.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers

EPOCH = 215  # 55,000 images, 256 a batch


def smoke(config):
    """Shrinks to seconds."""
    for stage in (config.dense, config.sparse):
        stage.model.widths = (50, 30)
    return papers.digits(common.smoke(config))


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "sparse", "slim")))
    config.shrink.score = "scale"
    config.shrink.fraction = 0.8
    config.l1.pattern = r"norm_\d/scale$"  # of hidden layers
    config.l1.weight = 1e-5
    settings = dict(
        model=common.model("mlp", widths=(500, 300), dropout=0.0, norm=True),
        optimizer="nesterov",
        batch_size=256,
        steps=30 * EPOCH,
        learning_rate=0.1,
        decay="steps",
        warmup=0.0,
        weight_decay=1e-4,
        clip=0.0,
    )
    config.dense = common.stage(**settings)
    config.sparse = common.stage(objective=("cross_entropy", "l1"), **settings)
    config.slim = common.stage(start="sparse", prepare=("shrink",), **settings)
    config = papers.attach(
        config,
        paper="Network Slimming, 784-500-300-10 (1708.06519, table 3)",
        says="1.49 % error, 84.4 % of the weights removed: 784-100-60-10",
        error=1.49,
        ratio=6.4,  # 545,000 weights over 85,000
        within=0.40,
        dense="dense",
        stage="slim",
        differs="scales begin at 1, not 0.5; batch norm of the outputs, too; the "
        "penalty's strength is not printed; 55,000 training images instead of 60,000",
    )
    return common.variant(arg, config, smoke=smoke)
