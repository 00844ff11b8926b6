"""Rounded after training, without training: GPTQ on the digits.

Frantar et al. 2022, "GPTQ" (arXiv 2210.17323), here of convolutions too, through the
Hessians of their patches. Variants: `adaround`, Nagel et al. 2020 (arXiv 2004.10568);
`nearest`, where each weight is rounded alone.

Expect, on 2 CPU cores (AMD EPYC), of a CNN of 65,834 weights (1 seed, 360 test images;
one image is 0.28 %), kernels alone rounded, a scale a channel, after 1,024 images; in
4 bits 32.7 kB instead of 219.9 kB:

    bits   float   nearest   nearest, range mse    gptq   adaround
      4    99.72     99.72                99.72   99.72      99.72
      3    99.72     98.33                97.50   99.44      99.72
      2    99.72     28.89                90.28   98.33      98.89

GPTQ's order and range and AdaRound's rate and strength were chosen by the error of the
layers' outputs on those images; at 2 bits, relative to the outputs, GPTQ leaves 0.36 in
the natural order over the full range, 0.21 with range mse, 0.20 by activation with it;
the nearest with it 0.46, AdaRound 0.14. The rounding takes less than a second (GPTQ) or
two (AdaRound), and ten to compile.

    python run.py --config=configs/techniques/gptq.py --workdir=/tmp/gptq
    python run.py --config=configs/techniques/gptq.py:adaround --workdir=/tmp/adaround
    python run.py --config=configs/techniques/gptq.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.gptq.bits=2
"""

from configs import common


def nearest(config):
    """Each weight to the nearest point of its grid."""
    config.compressed.transforms = ("quantize",)
    return config


def adaround(config):
    config.compressed.transforms = ("adaround",)
    return config


def smoke(config):
    config.dense.model.widths = (8, 16)
    config.dense.model.depth = 1
    config.adaround.steps = 20
    config = common.smoke(config)
    config.compressed.steps = 0
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.dense = common.stage(
        model=common.model("cnn", widths=(32, 64), depth=2, dropout=0.1),
        objective=("cross_entropy", "l2"),
        augment=("rotate", "shift"),
        steps=1500,
        learning_rate=3e-3,
        ema=0.99,
    )
    # Nothing trains: calibrated, rounded, packed.
    config.compressed = common.stage(start="dense", transforms=("gptq",), steps=0)
    return common.variant(arg, config, nearest=nearest, adaround=adaround, smoke=smoke)
