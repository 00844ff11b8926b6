"""Papers' rows over several seeds: claim, ours, file bytes, time, command.

Leaves `RESULTS.md`. Two to three hours on 2 CPU cores, nearly all of them LeNet-5,
from MNIST that TFDS has prepared.

    python run.py --config=configs/reproduce.py --workdir=/tmp/papers
    python run.py ... --config.papers="('snip',)" --config.seeds="(0,)"
    python run.py --config=configs/reproduce.py:smoke --workdir=/tmp/smoke
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Runs one paper's smoke variant, on the digits, for one seed."""
    config.papers = ("deep_compression:smoke",)
    config.seeds = (0,)
    return config


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="reproduce",
            xla_flags="",
            # Files of configs/papers, with a variant or without.
            papers=(
                "deep_compression",
                "snip",
                "snip:extreme",
                "rigl",
                "two_of_four",
                "slimming",
                "binary_connect",
                "binary_connect:stochastic",
                "ours",
                "deep_compression:lenet5",
                "ours:lenet5",
            ),
            seeds=(0, 1, 2),
            options=(),  # flags for every run, as "--config.data.data_dir=DIR"
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
