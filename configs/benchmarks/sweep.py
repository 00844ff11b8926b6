"""Sparsity x bits x seed of LeNet-300-100: 24 settings, one compiled program.

Each run trains LeNet-300-100 from fresh weights for 1,000 steps of 128 MNIST images
while it is pruned (Zhu & Gupta 2017, arXiv 1710.01878) and its weights are rounded.
Compared with 24 programs that are compiled one by one; BENCHMARKS.md has the figures.

    python run.py --config=configs/benchmarks/sweep.py --workdir=/tmp/sweep
    python run.py --config=configs/benchmarks/sweep.py:small --workdir=/tmp/small
    python run.py --config=configs/benchmarks/sweep.py:population --workdir=/tmp/many
    python run.py --config=configs/benchmarks/sweep.py:smoke --workdir=/tmp/smoke

`small` trains 128 nets of 64-64-32-10 on the digits, where running side by side pays
on a CPU; `population` trains 128 that are dense, of other learning rates, penalties and
seeds, in every form of one program; `smoke` runs in seconds on the digits.
"""

from ml_collections import ConfigDict

from configs import common


def small(config):
    """Trains many small nets on the digits."""
    config.data.name = "digits"
    config.swept.model.widths = (64, 32)
    config.swept.batch_size = 32
    config.sweep.grid = ((0.5, 0.8, 0.9, 0.95), (2, 3, 4, 8))
    config.sweep.seeds = tuple(range(8))
    config.sweep.compare = ("sequential", "vmapped")
    return config


def population(config):
    """128 dense nets that differ in learning rate, penalty and seed, on two devices."""
    config = small(config)
    config.xla_flags = "--xla_force_host_platform_device_count=2"  # one for each core
    config.swept.transforms = ()
    config.swept.objective = ("cross_entropy", "l2")
    config.sweep.fields = ("swept.learning_rate", "l2.weight")
    config.sweep.grid = ((1e-3, 3e-3, 1e-2, 3e-2), (1e-6, 1e-5, 1e-4, 1e-3))
    config.sweep.form = "sequential"
    config.sweep.compare = ("sequential", "vmapped", "sharded")
    config.sweep.repeats = 7
    return config


def smoke(config):
    """Shrinks to seconds, on data that every machine has."""
    config = small(config)
    config.xla_flags = common.FAST_TO_COMPILE
    config.swept.steps = 20
    config.prune.every = 5
    config.sweep.grid = ((0.5, 0.9), (3, 8))
    config.sweep.seeds = (0,)
    return config


def get_config(arg=""):
    config = common.base(experiment="sweep", stages=("swept",))
    config.data.name = "mnist"
    config.data.validation_fraction = 1 / 12  # 5,000 of 60,000
    config.swept = common.stage(
        model=common.model("mlp", widths=(300, 100), dropout=0.0),
        transforms=("prune", "quantize"),
        steps=1000,
        batch_size=128,
    )
    with config.unlocked():
        config.sweep = ConfigDict(
            dict(
                stage="swept",
                fields=("prune.sparsity", "quantize.bits"),
                grid=((0.5, 0.8, 0.9, 0.95), (2, 4, 8)),
                seeds=(0, 1),
                form="auto",  # or "sequential", "vmapped", "sharded"; auto asks a pilot
                compare=("sequential", "vmapped", "compiled"),  # timed as well
                repeats=0,  # further times of each, once it is compiled
            )
        )
    config.lock()
    return common.variant(arg, config, population=population, small=small, smoke=smoke)
