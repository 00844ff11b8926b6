"""Writes a finished stage as files of other runtimes, and measures those.

    python run.py --config=configs/export.py --workdir=/tmp/exported \
        --config.run=/tmp/quickstart --config.stage=quantized

Needs `requirements-deploy.txt`. Each file takes raw pixels; `export.json` tells what
the table says in all digits, and why a file was left out.
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
            export=common.export(targets=("onnx_float32", "onnx_int8")),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.export.repeats = 5
    config.export.warmup = 1
    return config
