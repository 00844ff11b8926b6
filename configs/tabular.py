"""A table: features chosen, an MLP trained, pruned, its weights in 4 bits, packed."""

from configs import common

OBJECTIVE = ("cross_entropy", "l1", "l2")


def of_table(config):
    """Sets what the data are, which features are kept, and the penalties."""
    config.data.name = "sklearn/breast_cancer"
    config.data.kind = "table"
    config.data.test = ""  # drawn: the set has one split
    config.data.table.select = "l1"
    config.data.table.keep = 12.0
    config.l1.weight = 1e-4
    config.l2.weight = 1e-3


def dense():
    """Returns the stage that trains the network."""
    return common.stage(
        model=common.model("mlp", widths=(64, 32), dropout=0.3),
        objective=OBJECTIVE,
        steps=600,
        use="best",
    )


def get_config(arg=""):
    config = common.base(stages=("dense", "pruned", "quantized"))
    of_table(config)
    config.prune.sparsity = 0.8
    config.dense = dense()
    config.pruned = common.stage(
        start="dense", objective=OBJECTIVE, transforms=("prune",), steps=1000
    )
    config.quantized = common.stage(
        start="pruned",
        objective=OBJECTIVE,
        transforms=("keep", "quantize"),
        program=("fake_quantize",),
        steps=500,
    )
    return common.variant(arg, config, smoke=common.smoke)
