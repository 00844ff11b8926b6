"""SNIP (Lee 2019, arXiv 1810.02340): LeNet-300-100 pruned before it is trained.

Saliency |w dL/dw| of one batch of 100 at the initial weights; the least of all layers
together go, once; then 60 epochs. Paper, table 1: 95 % 1.6 % error, 98 % 2.4 %,
reference 1.7 %.

    python run.py --config=configs/papers/snip.py --workdir=/tmp/snip
    python run.py --config=configs/papers/snip.py:extreme --workdir=/tmp/snip98
    python run.py --config=configs/papers/snip.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers


def extreme(config):
    """Removes 98 % instead of 95 %."""
    config.prune.sparsity = 0.98
    config.claim.paper = "SNIP, LeNet-300-100 at 98 % (1810.02340, table 1)"
    config.claim.says = "2.4 % error"
    config.claim.error = 2.4
    config.claim.within = 0.5
    return config


def smoke(config):
    """Shrinks to seconds."""
    config.dense.model.widths = (64, 32)
    config.pruned.model.widths = (64, 32)
    return papers.digits(common.smoke(config))


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "pruned")))
    config.prune.sparsity = 0.95
    config.prune.schedule = ""
    config.prune.score = "snip"
    config.prune.batches = 1
    config.prune.distribution = "global"
    settings = dict(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        optimizer="sgd",
        steps=33_000,  # 60 epochs
        batch_size=100,
        learning_rate=0.1,
        weight_decay=5e-4,
        warmup=0.0,
    )
    config.dense = common.stage(**settings)
    config.pruned = common.stage(transforms=("prune",), **settings)
    config = papers.attach(
        config,
        paper="SNIP, LeNet-300-100 at 95 % (1810.02340, table 1)",
        says="1.6 % error",
        error=1.6,
        within=0.3,
        dense="dense",
        stage="pruned",
        differs="cosine decay instead of steps; the same initial weights are scored "
        "and trained; 1/12 of the training data held out instead of 1/10",
    )
    return common.variant(arg, config, extreme=extreme, smoke=smoke)
