"""LoRA on the digits: an MLP of shifted digits is tuned to centred ones at rank 4.

Hu et al. 2022 (arXiv 2106.09685); `:qlora` rounds the weights that stay as they are to
4 bits (Dettmers et al. 2023, arXiv 2305.14314, on a plain grid instead of NF4). The
file holds the weights and the change, so LoRA saves what is trained, not bytes.

Expect, on 2 busy CPU cores (AMD EPYC), in 1 to 3 minutes (1 seed, 360 test images):
before 93.61 % and 281.6 kB; after 98.33 %, 296.3 kB, 4.4k of 89.4k weights trained
(and biases); `:qlora` 98.33 %, 55.7 kB.

    python run.py --config=configs/techniques/lora.py --workdir=/tmp/lora
    python run.py --config=configs/techniques/lora.py:qlora --workdir=/tmp/qlora
    python run.py --config=configs/techniques/lora.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.lora.rank=8
"""

from configs import common


def qlora(config):
    """The weights below the change in 4 bits."""
    config.compressed.transforms = ("lora", "quantize", "fixed")
    config.quantize.pattern = "rest$"
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.fixed.pattern = "rest$"
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 256), dropout=0.0),
        augment=("shift",),
        steps=300,
    )
    config.compressed = common.stage(
        start="dense",
        transforms=("lora", "fixed"),
        steps=500,
        learning_rate=3e-3,
    )
    return common.variant(arg, config, smoke=common.smoke, qlora=qlora)
