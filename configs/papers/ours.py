"""Chains of our own on MNIST: the smallest files at no more than the papers' error.

A dense teacher on shifted digits; its weights pruned layer by layer while the teacher
teaches; kernels in 4 bits and biases in 6, fine-tuned; packed. Deep Compression (Han
2016, arXiv 1510.00149) has 40x at 1.58 % (LeNet-300-100), 39x at 0.74 % (LeNet-5).

    python run.py --config=configs/papers/ours.py --workdir=/tmp/ours
    python run.py --config=configs/papers/ours.py:lenet5 --workdir=/tmp/ours5
    python run.py --config=configs/papers/ours.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers


def lenet5(config):
    """Puts LeNet-5 as in Caffe in the place of LeNet-300-100."""
    config.dense.model = common.model("lenet5", widths=(20, 50, 500), dropout=0.0)
    config.prune.rules = (
        ("^conv1/kernel", 0.5),
        ("^conv2/kernel", 0.957),
        ("^ip1/kernel", 0.9971),
        ("^ip2/kernel", 0.93),
        ("^ip1/bias", 0.9),
    )
    config.prune.every = 50
    config.prune.end = 0.75
    config.dense.steps = 5000
    config.pruned.steps = 20_000
    config.pruned.learning_rate = 3e-3
    config.quantized.steps = 3000
    for stage in (config.pruned, config.quantized):
        stage.batch_size = 64
    config.log_every = 200
    config.save_every = 1000
    config.claim.paper = "a chain of ours, LeNet-5 (aim: at most 4 kB, over 400x)"
    config.claim.says = "0.9 % error, over 400 times smaller"
    config.claim.error = 0.9
    config.claim.ratio = 400.0
    return config


def smoke(config):
    """Shrinks to seconds."""
    config.dense.model.widths = (64, 32)
    config = papers.digits(common.smoke(config))
    return config


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "pruned", "quantized")))
    config.prune.rules = (
        ("^dense_0/kernel", 0.985),
        ("^dense_1/kernel", 0.95),
        ("^logits/kernel", 0.7),
    )
    config.prune.end = 0.6
    config.prune.every = 20
    config.keep.pattern = "kernel|bias"
    config.quantize.granularity = "tensor"
    config.quantize.rules = (("kernel", 4), ("bias", 6))
    config.distill.weight = 0.5
    taught = dict(
        teacher="dense",
        objective=("cross_entropy", "distill"),
        augment=("shift",),
        batch_size=128,
    )
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        augment=("shift",),
        steps=16_000,
        batch_size=128,
        weight_decay=0.01,
    )
    config.pruned = common.stage(
        start="dense", transforms=("prune",), steps=16_000, **taught
    )
    config.quantized = common.stage(
        start="pruned",
        transforms=("keep", "quantize"),
        steps=6_000,
        learning_rate=3e-4,
        **taught,
    )
    config = papers.attach(
        config,
        paper="a chain of ours, LeNet-300-100 (against 1510.00149)",
        says="1.58 % error, 40 times smaller",
        error=1.58,
        ratio=40.0,
        dense="dense",
        stage="quantized",
        differs="shifted digits, a teacher, other layers' shares: no paper's settings",
    )
    return common.variant(arg, config, lenet5=lenet5, smoke=smoke)
