"""Post-training quantization beside ONNX Runtime's and qwix's, on the same ResNet.

Ours is configs/papers/resnet_ptq.py, which this runs first (or reads, if DIR/ours holds
it finished); then the peers start from its float weights, calibrate on its images and
are measured on the same test split. `requirements-deploy.txt` brings ONNX Runtime and
`requirements-bench.txt` qwix; a peer that is not installed, or cannot do what is asked,
says so in the table. BENCHMARKS.md holds what it measured.

    python run.py --config=configs/benchmarks/ptq.py --workdir=/tmp/benchmark
    python run.py --config=configs/benchmarks/ptq.py:resnet56 --workdir=/tmp/56
    python run.py --config=configs/benchmarks/ptq.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.ours.dense.weights=PATH
"""

from ml_collections import ConfigDict

from configs import common
from configs.papers import resnet_ptq


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="benchmark_ptq",
            xla_flags="",
            title="Post-training quantization of ResNet-20 on CIFAR-10",
            ours=resnet_ptq.get_config("resnet20"),
            dense="dense",  # the stage of ours that all start from
            # Stages of ours: name, what the table calls it, bits.
            rows=(
                ("dense", "Pare, packed float32", "float"),
                ("w8a8", "Pare, AdaRound, packed", "W8A8"),
                ("w4a8", "Pare, GPTQ, packed", "W4A8"),
            ),
            integers="w8a8",  # the one that is also measured as an int8 ONNX file
            batch_size=resnet_ptq.BATCH,
            batches=resnet_ptq.IMAGES // resnet_ptq.BATCH,
            peers=(
                "float",
                "ort_minmax",
                "ort_entropy",
                "ort_percentile",
                "qwix_int8",
                "qwix_static",
                "ort_int4",
                "qwix_int4",
                "qwix_weights",
            ),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke, resnet56=resnet56)


def resnet56(config):
    config.title = "Post-training quantization of ResNet-56 on CIFAR-10"
    config.ours = resnet_ptq.get_config("resnet56")
    return config


def smoke(config):
    """Shrinks to seconds, on digits; its numbers mean nothing."""
    config.title += ", made small"
    config.xla_flags = common.FAST_TO_COMPILE
    config.ours = resnet_ptq.get_config("smoke")
    config.batch_size = config.ours.w8a8.batch_size
    config.batches = config.ours.fake_quantize.batches
    config.peers = ("float", "ort_minmax", "qwix_int8")
    return config
