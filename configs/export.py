"""Writes a finished stage as ONNX files, and measures them in ONNX Runtime.

    python run.py --config=configs/export.py --workdir=/tmp/exported \
        --config.run=/tmp/quickstart --config.stage=quantized

Needs `requirements-deploy.txt`. Leaves `STAGE.onnx`, which takes raw pixels and any
batch, and `STAGE.int8.onnx` where activations were rounded and weights quantized; and
`export.json`, what the table says in all digits.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="export",
            xla_flags="",
            run="",  # the folder of a finished run
            stage="",  # the name of one of its stages
            eval_batch_size=256,
            # Of one thread; the files take turns, so that other load hits them alike.
            latency=dict(batch_sizes=(1, 8, 64), repeats=50, warmup=5),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.latency.repeats = 5
    config.latency.warmup = 1
    return config
