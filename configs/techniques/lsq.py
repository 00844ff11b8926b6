"""Learned step sizes: weights and activations of a CNN in 4 bits, steps trained.

LSQ, Esser et al. 2020 (arXiv 1902.08153): from a trained float network, one step for
each channel of a weight and one for each activation, the first and the last layer in 8
bits. "dense" trains the batch-norm CNN of `configs/digits_cnn.py` on scikit-learn's
handwritten digits, "compressed" goes on from it in few bits.

- `bits3`: 3 bits in the place of 4.
- `pact`: PACT (Choi et al. 2018, 1805.06085): learned clipping of activations over
  DoReFa's weights, first and last layer in float.
- `dorefa`: DoReFa (Zhou et al. 2016, 1606.06160): the same weights, activations clipped
  to [0, 1].
- `progressive`: plain rounding on the latent weights' range, from 8 bits to 3.
- `delayed`: Jacob et al. 2018 (1712.05877): 8 bits that begin late, on ranges that
  follow the batches, with batch norm at rest at the end.
- `lenet5`, `lenet5_bits3`: LeNet-5 on MNIST, prepared beforehand through TFDS.

`lenet5` against float, seeds 0, 1, 2: +0.08, +0.14, +0.04 points and 7.6 times smaller;
`lenet5_bits3` 0.00, +0.03, +0.05 and 10.8 times; 5 to 10 minutes each on 2 busy CPU
cores.

Expect, on 2 busy CPU cores (AMD EPYC), in a minute (360 test images, of which one is
0.28 points; against the float network of the same seed, seeds 0, 1, 2): 4 bits -0.28,
-0.28, 0.00 and 7.1 times smaller; `bits3` 0.00, 0.00, -0.28 and 9.5 times smaller. Seed
0 alone: `pact` -0.28, `dorefa` 0.00, `progressive` +0.28, `delayed` -0.56.

    python run.py --config=configs/techniques/lsq.py --workdir=/tmp/lsq
    python run.py --config=configs/techniques/lsq.py:bits3 --workdir=/tmp/lsq3
    python run.py --config=configs/techniques/lsq.py:lenet5 --workdir=/tmp/lenet5
    python run.py --config=configs/techniques/lsq.py:smoke --workdir=/tmp/smoke
"""

from configs import common

# Of the CNN: all but the first and the last layer.
BETWEEN = r"conv_0_1|conv_1_\d"


def in_bits(config, bits, ends):
    """Puts the first and last layer, which `ends` finds, in 8 bits, the rest in `bits`.

    A weight's path goes on behind its layer, an activation's site ends with it.
    """
    config.lsq.rules = ((f"({ends})/kernel", 8), (r"/kernel(/|$)", bits))
    config.fake_quantize.rules = ((f"({ends})$", 8), (".", bits))
    return config


def bits3(config):
    return in_bits(config, 3, "conv_0_0|logits")


def dorefa(config):
    """Levels without a 0, and activations that batch norm learns to fit into [0, 1]."""
    config.compressed.transforms = ("dorefa",)
    config.dorefa.rules = ((BETWEEN, 4),)
    config.fake_quantize.rules = ((BETWEEN, 4),)
    config.fake_quantize.learn = ""
    config.fake_quantize.calibration = "fixed"
    return config


def pact(config):
    config = dorefa(config)
    config.fake_quantize.learn = "pact"
    config.fake_quantize.calibration = "minmax"
    config.fake_quantize.shrink = 1e-4
    return config


def progressive(config):
    """Whole bits: 8, 7, 6, 5, 4, and 3 from half of the steps on."""
    config.compressed.transforms = ("quantize",)
    config.quantize.bits = 3
    config.quantize.schedule = "linear"
    return config


def delayed(config):
    config.compressed.transforms = ("quantize",)
    config.quantize.bits = 8
    config.fake_quantize.rules = ()
    config.fake_quantize.learn = ""
    config.fake_quantize.calibration = "moving_average"
    config.fake_quantize.track = True
    config.fake_quantize.decay = 0.99
    config.fake_quantize.begin = 0.3
    config.compressed.freeze_norm = 0.7
    return config


def lenet5(config):
    config.data.name = "mnist"
    config.data.validation_fraction = 1 / 12  # 5,000 of 60,000
    config.dense.model = common.model("lenet5", widths=(20, 50, 500), dropout=0.0)
    config.dense.objective = ("cross_entropy",)
    config.dense.learning_rate = 1e-3
    for name, steps in (("dense", 3000), ("compressed", 3000)):
        config[name].steps = steps
        config[name].batch_size = 128
        config[name].augment = ("shift",)
    config.log_every = 100
    config.save_every = 500
    return in_bits(config, 4, "conv1|ip2")


def lenet5_bits3(config):
    return in_bits(lenet5(config), 3, "conv1|ip2")


def smoke(config):
    """Shrinks the model too: convolutions take long to compile."""
    config.dense.model.widths = (8, 16)
    config.dense.model.depth = 1
    return common.smoke(config)


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    augment = ("rotate", "shift")
    config.fake_quantize.learn = "lsq"
    config.fake_quantize.calibration = "mse"  # where the ranges begin
    config = in_bits(config, 4, "conv_0_0|logits")
    config.dense = common.stage(
        model=common.model("cnn", widths=(32, 64), depth=2, dropout=0.1),
        objective=("cross_entropy", "l2"),
        augment=augment,
        steps=1500,
        learning_rate=3e-3,
        ema=0.99,
    )
    config.compressed = common.stage(
        start="dense",
        transforms=("lsq",),
        program=("fake_quantize",),
        augment=augment,
        steps=1500,
    )
    return common.variant(
        arg,
        config,
        bits3=bits3,
        pact=pact,
        dorefa=dorefa,
        progressive=progressive,
        delayed=delayed,
        lenet5=lenet5,
        lenet5_bits3=lenet5_bits3,
        smoke=smoke,
    )
