"""Filter pruning (Li et al. 2017, arXiv 1608.08710, table 1): ResNet-56 on CIFAR-10.

The filters of least L1 norm are removed from the first convolution of each residual
block, but for blocks that are sensitive: A takes 10 % everywhere, B 60, 30 and 10 % of
the three stages. Rounded up, that is 9.4 % fewer parameters and 10.4 % fewer operations
for A (6.96 % error becomes 6.90 %), 13.7 % and 27.6 % for B (6.94 %). Then 40 epochs at
a constant rate of 0.001.

Needs CIFAR-10 as TFDS prepares it, and the weights of the ResNet as PyTorch keeps them,
in circulation as `resnet56-4bfd9763.th`, 6.61 % error.

    python run.py --config=configs/papers/filter_pruning.py --workdir=/tmp/a
    python run.py --config=configs/papers/filter_pruning.py:b --workdir=/tmp/b
    python run.py ... --config.dense.weights=PATH
    python run.py --config=configs/papers/filter_pruning.py:smoke --workdir=/tmp/smoke

Retraining takes 40 epochs of CIFAR-10: minutes on a GPU, hours on a CPU;
`--config.pruned.steps=0` measures what is left without it. RESULTS.md holds what came
out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers

EPOCH = 351  # 45,000 images, 128 a batch


def _blocks(*layers):
    """Returns a pattern of blocks by the numbers of their first layers, as printed."""
    blocks = ((n - 2) // 2 for n in layers)
    names = "|".join(f"block_{n // 9}_{n % 9}" for n in blocks)
    return f"^({names})/conv_0$"


def b(config):
    """ResNet-56-B."""
    config.shrink.rules = (
        (_blocks(16, 18, 20, 34, 38, 54), 0.0),
        (r"^block_0_\d/conv_0$", 0.6),
        (r"^block_1_\d/conv_0$", 0.3),
        (r"^block_2_\d/conv_0$", 0.1),
    )
    config.claim.paper = "filter pruning, ResNet-56-B (1608.08710, table 1)"
    config.claim.says = "6.94 % error, 13.7 % fewer parameters, 27.6 % fewer operations"
    config.claim.error = 6.94
    return config


def smoke(config):
    """Shrinks to seconds, and trains its own dense network."""
    config.dense.weights = ""
    config.dense.steps = 20
    config.dense.model.depth = 8
    config.dense.model.widths = (4, 8, 8)
    config.data.normalisation = "measured"
    config.data.validation_fraction = 0.15
    config.shrink.rules = ((r"^block_\d_0/conv_0$", 0.3),)
    return papers.digits(common.smoke(config))


def get_config(arg=""):
    config = common.base(stages=("dense", "pruned"))
    config.data.name = "cifar10"
    config.data.normalisation = "imagenet"
    config.data.validation_fraction = 0.1
    config.log_every = 100
    config.save_every = EPOCH
    config.eval_batch_size = 500
    config.latency.batch_size = 64
    config.shrink.rules = (
        (_blocks(16, 20, 38, 54), 0.0),
        (r"/conv_0$", 0.1),
    )
    config.dense = common.stage(
        weights="~/.cache/pare/resnet56-4bfd9763.th",
        model=common.model("resnet", depth=56, widths=(16, 32, 64)),
        steps=0,
    )
    config.pruned = common.stage(
        start="dense",
        prepare=("shrink",),
        augment=("flip", "shift"),
        steps=40 * EPOCH,
        batch_size=128,
        optimizer="sgd",
        learning_rate=1e-3,
        decay="constant",
        warmup=0.0,
        weight_decay=1e-4,
        clip=0.0,
    )
    config.shift.pixels = 4
    config = papers.attach(
        config,
        paper="filter pruning, ResNet-56-A (1608.08710, table 1)",
        says="6.90 % error, 9.4 % fewer parameters, 10.4 % fewer operations",
        error=6.90,
        within=0.4,
        dense="dense",
        stage="pruned",
        differs="weights of another training (6.61 % error before, not 6.96 %); the "
        "last epoch instead of the best on the test images",
    )
    return common.variant(arg, config, b=b, smoke=smoke)
