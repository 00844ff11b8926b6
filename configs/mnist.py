"""LeNet-300-100 or LeNet-5 on MNIST: dense, pruned to 95 %, in 4 bits, packed.

Data: MNIST through TFDS, prepared beforehand: a run on a machine without it says with
which command. Models: LeCun et al. 1998; LeNet-5 as in Caffe.

Expect of LeNet-300-100, on 2 CPU cores, in 90 s (1 seed, 10,000 test images): dense
98.89 %, packed 98.96 %, 19.6 kB against 1,067 kB: 54.5 times smaller. The LeNet-5
variant was started but not run to its end: expect some 15 minutes, and no number.

    python run.py --config=configs/mnist.py --workdir=/tmp/mnist
    python run.py --config=configs/mnist.py:lenet5 --workdir=/tmp/lenet5
    python run.py --config=configs/mnist.py:smoke --workdir=/tmp/smoke

The smoke variant trains on the digits, which need no preparation.
"""

from configs import common


def lenet5(config):
    """Puts LeNet-5 in the place of LeNet-300-100."""
    config.dense.model = common.model("lenet5", widths=(20, 50, 500), dropout=0.0)
    for name, steps in (("dense", 2000), ("pruned", 2000), ("quantized", 1000)):
        config[name].steps = steps  # a step takes ten times as long on a CPU
    config.save_every = 500
    return config


def smoke(config):
    """Shrinks to seconds, on data that every machine has."""
    config.data.name = "digits"
    config.dense.model.widths = (64, 32)
    config = common.smoke(config)
    for name in config.stages:
        config[name].batch_size = 32
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "pruned", "quantized"))
    config.data.name = "mnist"
    config.data.validation_fraction = 1 / 12  # 5,000 of 60,000
    config.prune.sparsity = 0.95
    config.prune.distribution = "erk"
    config.log_every = 100
    config.save_every = 1000
    config.dense = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        augment=("shift",),
        steps=8000,
        batch_size=128,
        weight_decay=0.01,
    )
    config.pruned = common.stage(
        start="dense",
        transforms=("prune",),
        augment=("shift",),
        steps=8000,
        batch_size=128,
    )
    config.quantized = common.stage(
        start="pruned",
        transforms=("keep", "quantize"),
        program=("fake_quantize",),
        augment=("shift",),
        steps=3000,
        batch_size=128,
        learning_rate=3e-4,
    )
    return common.variant(arg, config, smoke=smoke, lenet5=lenet5)
