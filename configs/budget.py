"""At most 9,000 bytes and 1 point lost: bits and sparsity of each layer are found.

On the digits (Alpaydin & Kaynak 1998): layers are tried one by one, a knapsack chooses
with exact bytes, the network is fine-tuned so with its dense self as a teacher, and the
file is measured. Says plainly when it cannot be done, and what is nearest.

    python run.py --config=configs/budget.py --workdir=/tmp/budget
    python run.py --config=configs/budget.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.budget.bytes=4000 --config.budget.points=0.5
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: one attempt, few options."""
    config = common.smoke(config)
    config.dense.model.widths = (16,)
    config.small.teacher = ""
    config.small.objective = ("cross_entropy",)
    config.budget.attempts = 1
    config.budget.sensitivity.strengths.sparsity = (0.0, 0.5)
    config.budget.sensitivity.strengths.bits = (2, 8)
    return config


def get_config(arg=""):
    config = common.base(experiment="budget", stages=("dense", "small"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0), steps=2000
    )
    config.small = common.stage(
        start="dense",
        teacher="dense",
        objective=("cross_entropy", "distill"),
        transforms=("prune", "quantize"),
        steps=2000,
        learning_rate=2e-3,
    )
    with config.unlocked():
        config.budget = ConfigDict(
            dict(
                dense="dense",  # the stage that is compressed
                stage="small",  # the stage that fine-tunes what was chosen
                bytes=9000,  # of the packed file, at most
                points=1.0,  # of validation accuracy lost, at most
                attempts=4,  # choices that are trained, at most
                growth=1.5,  # of the bytes, where a choice lost too much
                sensitivity=dict(
                    techniques=("sparsity", "bits"),
                    strengths=dict(
                        sparsity=(0.0, 0.5, 0.7, 0.8, 0.9, 0.95),  # fraction removed
                        bits=(2, 3, 4, 6, 8),
                    ),
                    pattern=r"(^|/)kernel(/|$)",  # leaves that have a choice
                    together=16,  # cells side by side in one call
                ),
            )
        )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
