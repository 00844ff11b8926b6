"""Cats or dogs from scratch: a CNN, pruned, in 8 and 4 bits, and a small student of it.

Images: TFDS's cats_vs_dogs (Elson et al. 2007) at 64x64; or, as `cifar10`, the two
classes of CIFAR-10 (Krizhevsky 2009) at 32x32, 10,000 images to train on and 2,000 to
test on. Both are prepared beforehand; a run without them says with which command.

`dense` trains with flips, turns and shifts. `pruned` removes 80 % of its weights (Zhu &
Gupta 2017, arXiv 1710.01878) and `quantized` has weights in 4 and activations in 8 bits
(Jacob 2018, 1712.05877), both taught by `dense`. `student`, of half the widths, learns
from `dense` (Hinton 2015, 1503.02531), and `small` is that in the same bits.

Expect of `cifar10` (seeds 0, 1, 2; medians, one image of 2,000 is 0.05 %): dense
79.50 % in 314 kB, pruned 79.85 %, quantized 80.05 % in 18.9 kB, student 77.50 %, small
77.80 % in 12.2 kB, 26 times smaller and 5 times faster than dense. Five minutes on 2
cores of an AMD EPYC, Python 3.11, JAX 0.10.2. cats_vs_dogs itself was not run.

    python run.py --config=configs/cats_vs_dogs.py --workdir=/tmp/cats
    python run.py --config=configs/cats_vs_dogs.py:cifar10 --workdir=/tmp/cats_cifar10
    python run.py --config=configs/cats_vs_dogs.py:smoke --workdir=/tmp/smoke
"""

from configs import common

CLASSES = ("cat", "dog")


def cifar10(config):
    """The two classes of CIFAR-10."""
    config.data.update(dict(name="cifar10", test="test", image_shape=(), only=CLASSES))
    config.data.corrupt = "error"
    return config


def smoke(config):
    """Shrinks to seconds: two of the digits."""
    config = common.smoke(cifar10(config))
    config.data.update(dict(name="digits", only=("3", "8")))
    config.dense.model.widths = config.student.model.widths = (4, 8)
    config.dense.model.depth = config.student.model.depth = 1
    config.dense.augment = ("flip",)
    return config


def get_config(arg=""):
    stages = ("dense", "pruned", "quantized", "student", "small")
    config = common.base(stages=stages)
    config.data.update(
        dict(
            name="cats_vs_dogs",
            test="",  # TFDS has a train split only: a fifth is drawn
            validation_fraction=0.1,
            image_shape=(64, 64, 3),
            corrupt="skip",
        )
    )
    config.eval_batch_size = 250
    config.log_every, config.save_every = 100, 500
    config.prune.sparsity = 0.8
    config.prune.distribution = "erk"
    config.rotate.degrees, config.shift.pixels = 10.0, 3
    config.distill.temperature = 2.0
    config.distill.weight = 1.0
    augment = ("flip", "rotate", "shift")
    taught = dict(
        teacher="dense",
        objective=("cross_entropy", "distill"),
        augment=augment,
        batch_size=64,
        use="best",
    )
    rounds = dict(program=("fake_quantize",), steps=300, learning_rate=5e-4)
    config.dense = common.stage(
        model=common.model("cnn", widths=(32, 64, 128), depth=1, dropout=0.2),
        objective=("cross_entropy", "l2"),
        augment=augment,
        batch_size=64,
        steps=2000,
        learning_rate=3e-3,
        use="best",
    )
    config.pruned = common.stage(
        start="dense", transforms=("prune",), steps=800, learning_rate=1e-3, **taught
    )
    config.quantized = common.stage(
        start="pruned", transforms=("keep", "quantize"), **rounds, **taught
    )
    config.student = common.stage(
        model=common.model("cnn", widths=(16, 32, 64), depth=1, dropout=0.0),
        steps=2000,
        learning_rate=3e-3,
        **taught,
    )
    config.small = common.stage(
        start="student", transforms=("quantize",), **rounds, **taught
    )
    return common.variant(arg, config, cifar10=cifar10, smoke=smoke)
