"""How much faster a network runs with half of its channels, and in integers too.

The batch-norm CNNs of configs/deploy.py and configs/benchmarks/deploy.py with fresh
weights, whole and with half of each group of channels removed, as files that take turns
on one core; and how long the groups of larger networks take to find. BENCHMARKS.md has
the figures. Needs `requirements-deploy.txt`.

    python run.py --config=configs/benchmarks/shrink.py --workdir=/tmp/shrunk
    python run.py --config=configs/benchmarks/shrink.py:smoke --workdir=/tmp/smoke
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="benchmark_shrink",
            xla_flags="",
            names=("deployed", "large"),  # of models below
            models=dict(
                # The CNN of configs/deploy.py.
                deployed=dict(
                    model=common.model("cnn", widths=(64, 128), depth=2),
                    shape=(8, 8, 1),
                    points="means",
                ),
                large=dict(
                    model=common.model("cnn", widths=(64, 128, 256), depth=1),
                    shape=(32, 32, 3),
                    points="means",
                ),
            ),
            fractions=(0.5,),  # of each group's units
            analyse=("ResNet-50", "ResNet-152"),  # whose groups are found
            side=224,  # of the images that these are traced on
            examples=64,  # random images, to calibrate on
            export=common.export(
                targets=("stablehlo_float32", "onnx_float32", "onnx_int8"),
            ),
        )
    )
    config.export.batch_sizes = (1, 32, 64)
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.names = ("deployed",)
    config.models.deployed.model.widths = (8, 8)
    config.models.deployed.model.depth = 1
    config.analyse = ()
    config.xla_flags = common.FAST_TO_COMPILE
    config.export.targets = ("stablehlo_float32", "onnx_float32")
    config.export.batch_sizes = (1, 8)
    config.export.repeats = 5
    config.export.warmup = 1
    return config
