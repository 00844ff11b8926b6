"""Step time of dense, pruned and quantized training, against a hand-written loop.

Peers: qwix 0.1.8 and AQT 0.9.0, beside ours where `requirements-bench.txt` is
installed. About six minutes on 2 cores; `BENCHMARKS.md` holds what it measured.
Leave the machine alone meanwhile: a ratio of 1.03 is easily lost in a neighbour.

    python run.py --config=configs/benchmarks/step.py --workdir=/tmp/benchmark
    python run.py --config=configs/benchmarks/step.py:smoke --workdir=/tmp/smoke
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="benchmark",
            xla_flags="",
            seed=0,
            models=("mlp", "lenet", "cnn", "transformer"),
            contenders=(
                "plain",
                "stepwise",
                "dense",
                "prune",
                "quantize",
                "qwix",
                "aqt",
            ),
            rounds=30,
            warmup=2,  # rounds that are not timed; all is compiled in them
            steps_per_call=0,  # 0: as many as Pare's own training loop takes
            batch_size=32,
            examples=2048,  # random images on the device
            learning_rate=1e-3,
            weight_decay=1e-4,
            sparsity=0.9,
            every=10,  # steps between mask updates
            bounds=dict(dense=1.03, prune=1.08, quantize=1.12),  # that we aim at
            # `steps` of a round: a multiple of `every`.
            mlp=dict(
                title="MLP 784-1024-1024-10",
                model=common.model("mlp", widths=(1024, 1024)),
                shape=(28, 28, 1),
                steps=50,
            ),
            lenet=dict(
                title="MLP 784-300-100-10 (LeNet-300-100)",
                model=common.model("mlp", widths=(300, 100)),
                shape=(28, 28, 1),
                steps=200,
            ),
            cnn=dict(
                title="CNN, 3x3 convolutions of 32, 64, 128 channels on 32x32x3",
                model=common.model("cnn", widths=(32, 64, 128)),
                shape=(32, 32, 3),
                steps=10,
            ),
            transformer=dict(
                title="Transformer, 2 layers of width 128 on 32x32x3, patches of 4",
                model=common.model("transformer", layers=2, width=128, patch=4),
                shape=(32, 32, 3),
                steps=10,
            ),
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    """Shrinks models and rounds to seconds; its numbers mean nothing."""
    config.xla_flags = common.FAST_TO_COMPILE
    config.models = ("mlp",)
    config.rounds = 2
    config.warmup = 1
    config.examples = 64
    config.mlp.model.widths = (16,)
    config.cnn.model.widths = (4, 8)
    config.transformer.model.layers = 1
    config.transformer.model.width = 16
    for name in ("mlp", "lenet", "cnn", "transformer"):
        config[name].title += ", made small"
        config[name].shape = (8, 8, config[name].shape[-1])
        config[name].steps = config.every
    return config
