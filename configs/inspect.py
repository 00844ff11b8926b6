"""Shows what of a packed artifact takes how many bytes, weight by weight.

    python run.py --config=configs/inspect.py \
        --config.path=/tmp/quickstart/artifacts/quantized.pare

Prints a line for each weight: how it is stored, its shape, bits for each of its
weights, how many of those stored masks remove, bytes. Needs no --workdir: it leaves
nothing behind.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(dict(experiment="inspect", xla_flags="", path=""))
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    return config
