"""Measures packed artifacts in a fresh process: accuracy, bytes, MACs, latency.

    python run.py --config=configs/evaluate.py --workdir=/tmp/measured \
        --config.paths="('/tmp/quickstart/artifacts/quantized.pare',)"
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="evaluate",
            xla_flags="",
            paths=(),  # of artifacts
            eval_batch_size=256,
            latency=dict(batch_size=256, repeats=30, warmup=5),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.latency.repeats = 5
    config.latency.warmup = 1
    return config
