"""Transfer: all but the last layer is fixed, and the head is trained on its features.

Yosinski et al. 2014 (arXiv 1411.1792), "frozen" features. "dense" trains a network on
scikit-learn's handwritten digits; "compressed" starts from it and trains the head only,
with the rest as it is, to the bit: no slot in the optimiser and no weight decay. What
is measured is what a new head loses or gains on features that do not move; `quantized`
rounds the features to 3 bits, and the head is all that makes up for it.

Expect, on 2 CPU cores (AMD EPYC), 1 seed, 360 test images: dense 97.78 %, a retrained
head 97.78 %; `quantized` 97.78 % in 20.0 kB against 168 kB: 8.4 times smaller; with
`--config.quantize.bits=2` 91.94 % in 11.6 kB.

    python run.py --config=configs/techniques/fixed.py --workdir=/tmp/fixed
    python run.py --config=configs/techniques/fixed.py:quantized --workdir=/tmp/q
    python run.py --config=configs/techniques/fixed.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def quantized(config):
    """Rounds the features, then fixes them; the head stays in float."""
    config.quantize.bits = 3
    config.quantize.pattern = r"^dense_\d/kernel"
    config.compressed.transforms = ("quantize", "fixed")
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.fixed.pattern = r"^(?!logits/)"  # all but the head
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.1),
        augment=("rotate", "shift"),
        steps=1500,
    )
    config.compressed = common.stage(
        start="dense",
        transforms=("fixed",),
        augment=("rotate", "shift"),
        steps=500,
        weight_decay=0.01,
    )
    return common.variant(arg, config, quantized=quantized, smoke=common.smoke)
