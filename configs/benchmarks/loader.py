"""The training step on images that are streamed, beside the same on images in memory.

CIFAR-10 as TFDS prepares it (PNG in ArrayRecord), 256 images a batch, flipped and
shifted: how much of the rate is left when a batch is read and decoded for each step, as
in the first epoch, with Grain's threads on the cores that the step uses as well; and
when it was decoded before and kept, as in all others. BENCHMARKS.md has the figures.
Leave the machine alone meanwhile. About 15 minutes on 2 cores.

    python run.py --config=configs/benchmarks/loader.py --workdir=/tmp/loader
    python run.py --config=configs/benchmarks/loader.py:smoke --workdir=/tmp/smoke
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = common.base(experiment="benchmark_loader", stages=("timed",))
    with config.unlocked():
        config.loader = ConfigDict(
            dict(
                models=("resnet", "cnn"),
                resnet=common.model("resnet", depth=20, widths=(16, 32, 64)),
                cnn=common.model("cnn", widths=(32, 64, 128)),
                rounds=15,
                steps=10,  # of a round that are timed, of each
                bound=0.95,  # that we aim at
            )
        )
    config.data.name = "cifar10"
    config.data.resident_bytes = 0  # streamed, though it is small
    config.data.kept_bytes = 0
    config.data.threads = 2
    config.data.ahead = 8
    config.shift.pixels = 4
    config.timed = common.stage(
        augment=("flip", "shift"), batch_size=256, optimizer="sgd", learning_rate=0.1
    )
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    """Shrinks to seconds, on the digits; its numbers mean nothing."""
    config.data.name = "digits"
    config.xla_flags = common.FAST_TO_COMPILE
    config.loader.models = ("cnn",)
    config.loader.cnn.widths = (4, 8)
    config.loader.rounds = 2
    config.loader.steps = 2
    config.shift.pixels = 1
    config.timed.augment = ("shift",)
    config.timed.batch_size = 32
    config.data.ahead = 2
    return config
