"""Deep Compression (Han 2016, arXiv 1510.00149) on MNIST: prune, share, entropy-code.

LeNet-300-100 keeps 8, 9 and 26 % of its layers' weights, LeNet-5 66, 12, 8 and 19 %
(tables 2 and 3); what is left shares 64 values a layer (LeNet-5: 256 in convolutions,
32 in dense layers), started linearly between the extremes; their centroids are trained;
the file entropy-codes indices and positions. Paper: 1.58 % and 40x, 0.74 % and 39x.

    python run.py --config=configs/papers/deep_compression.py --workdir=/tmp/dc
    python run.py --config=configs/papers/deep_compression.py:lenet5 --workdir=/tmp/dc5
    python run.py --config=configs/papers/deep_compression.py:smoke --workdir=/tmp/smoke

RESULTS.md holds what came out. The smoke variant trains on the digits.
"""

from configs import common
from configs.papers import common as papers


def lenet5(config):
    """Puts LeNet-5 as in Caffe in the place of LeNet-300-100."""
    config.dense.model = common.model("lenet5", widths=(20, 50, 500), dropout=0.0)
    config.prune.rules = (
        ("^conv1/kernel", 0.34),
        ("^conv2/kernel", 0.88),
        ("^ip1/kernel", 0.92),
        ("^ip2/kernel", 0.81),
    )
    config.share.rules = (("^conv", 8), ("^ip", 5))
    config.dense.steps = 8600  # 10 epochs
    config.pruned.steps = 8600
    config.shared.steps = 1720  # 2 epochs
    config.claim.says = "0.74 % error, 39 times smaller (44 kB)"
    config.claim.paper = "Deep Compression, LeNet-5 (1510.00149, table 1)"
    config.claim.error = 0.74
    config.claim.ratio = 39.0
    config.claim.within = 0.15
    return config


def smoke(config):
    """Shrinks to seconds."""
    config.dense.model.widths = (64, 32)
    return papers.digits(common.smoke(config))


def get_config(arg=""):
    config = papers.mnist(common.base(stages=("dense", "pruned", "shared")))
    config.prune.rules = (
        ("^dense_0/kernel", 0.92),
        ("^dense_1/kernel", 0.91),
        ("^logits/kernel", 0.74),
    )
    config.prune.end = 0.5
    config.share.bits = 6
    sgd = dict(optimizer="sgd", batch_size=64, weight_decay=5e-4, warmup=0.0)
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        steps=17_200,  # 20 epochs
        learning_rate=0.05,
        **sgd,
    )
    config.pruned = common.stage(
        start="dense",
        transforms=("prune",),
        steps=17_200,
        learning_rate=0.02,
        **sgd,
    )
    config.shared = common.stage(
        start="pruned",
        transforms=("keep", "share"),
        steps=2_580,  # 3 epochs
        batch_size=64,
        learning_rate=1e-4,
        warmup=0.0,
    )
    config = papers.attach(
        config,
        paper="Deep Compression, LeNet-300-100 (1510.00149, table 1)",
        says="1.58 % error, 40 times smaller (27 kB)",
        error=1.58,
        ratio=40.0,
        within=0.20,
        dense="dense",
        stage="shared",
        differs="pruned gradually (cubic) instead of in rounds; positions as coded "
        "masks instead of 5-bit gaps with fillers; static rANS instead of Huffman; "
        "the file holds biases, names and checksums too",
    )
    return common.variant(arg, config, lenet5=lenet5, smoke=smoke)
