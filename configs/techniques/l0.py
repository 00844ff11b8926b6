"""L0 regularisation on the digits: gates on the inputs of every layer.

Paper: Louizos et al. 2018 (arXiv 1712.01312), its MLP with a gate an input neuron.

Expect, on 2 CPU cores (AMD EPYC), in 30 s (1 seed, 360 test images): dense 99.44 %,
packed 98.33 % with 12,976 of 50,826 weights, 3.9 times smaller; variant `element`
98.33 % with 2,042, 20.9 times smaller. Strengths were chosen on the validation images:
the largest of 1e-4, 2e-4, 4e-4 and 8e-4 (`element`: 2e-4, 5e-4 and 1e-3) that cost less
than 2 points there.

    python run.py --config=configs/techniques/l0.py --workdir=/tmp/l0
    python run.py --config=configs/techniques/l0.py:element --workdir=/tmp/l0_element
    python run.py --config=configs/techniques/l0.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def element(config):
    """Gates every weight by itself."""
    config.l0.groups = "element"
    config.l0.drop_rate = 0.3
    config.l0.strength = 1e-3
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0),
        augment=("shift",),
        steps=1500,
        weight_decay=0.01,
    )
    config.compressed = common.stage(
        start="dense",
        transforms=("l0",),
        steps=3000,
        learning_rate=1e-2,
    )
    config.l0.strength = 2e-4
    return common.variant(arg, config, smoke=common.smoke, element=element)
