"""A table: features chosen, an MLP trained, pruned, its weights in 4 bits, packed."""

from configs import common


def smoke(config):
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "pruned", "quantized"))
    config.data.name = "sklearn/breast_cancer"
    config.data.kind = "table"
    config.data.test = ""
    config.data.table.select = "l1"
    config.data.table.keep = 12.0
    config.l1.weight = 1e-4
    config.l2.weight = 1e-3
    objective = ("cross_entropy", "l1", "l2")
    config.prune.sparsity = 0.8
    config.dense = common.stage(
        model=common.model("mlp", widths=(64, 32), dropout=0.3),
        objective=objective,
        steps=1000,
    )
    config.pruned = common.stage(
        start="dense",
        objective=objective,
        transforms=("prune",),
        steps=1000,
    )
    config.quantized = common.stage(
        start="pruned",
        objective=("cross_entropy",),
        transforms=("keep", "quantize"),
        program=("fake_quantize",),
        steps=500,
        use="best",
    )
    return common.variant(arg, config, smoke=smoke)
