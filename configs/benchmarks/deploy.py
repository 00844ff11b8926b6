"""How fast files of integers run against files of floats, in the same runtime.

An MLP 784-1024-1024-1024-10, a CNN with batch norm of 64, 128 and 256 channels, a
ResNet-20 of 32 to 128 channels and a transformer of 4 layers, with fresh weights: speed
and size do not depend on them. All files take turns, one thread on one core;
BENCHMARKS.md has the figures. Needs `requirements-deploy.txt`.

    python run.py --config=configs/benchmarks/deploy.py --workdir=/tmp/deployed
    python run.py --config=configs/benchmarks/deploy.py:smoke --workdir=/tmp/smoke
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="deployment",
            xla_flags="",
            names=("mlp", "cnn", "resnet", "transformer"),  # of models below
            models=dict(
                mlp=dict(
                    model=common.model("mlp", widths=(1024, 1024, 1024), dropout=0.0),
                    shape=(28, 28, 1),
                    points="inputs",
                ),
                cnn=dict(
                    model=common.model("cnn", widths=(64, 128, 256), depth=1),
                    shape=(32, 32, 3),
                    points="means",
                ),
                resnet=dict(
                    model=common.model("resnet", depth=20, widths=(32, 64, 128)),
                    shape=(32, 32, 3),
                    points="means",
                ),
                transformer=dict(
                    model=common.model(
                        "transformer", layers=4, width=256, heads=4, patch=4
                    ),
                    shape=(32, 32, 3),
                    points="inputs",
                ),
            ),
            examples=64,  # random images, to calibrate on and to compare outputs
            export=common.export(targets=("onnx_float32", "onnx_int8")),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.names = ("mlp",)
    config.models.mlp.model.widths = (16,)
    config.export.batch_sizes = (1, 8)
    config.export.repeats = 5
    config.export.warmup = 1
    return config
