"""A batch-norm CNN quantized after training and while training, in every runtime.

Data: scikit-learn's handwritten digits. Post-training: batch norm folded, ranges from
the smallest to the largest seen, eight bits; aware: straight through (Jacob et al.
2018, arXiv 1712.05877). Rounded is what enters a contraction, and the mean at the end.
Needs `requirements-deploy.txt`.

Expect, on 2 CPU cores (AMD EPYC), in a minute and a half (1 seed, 360 test images):
dense 98.89 %, after training 98.89 %, aware 99.72 %, the same from every file. ONNX in
integers against floats, one thread, both in ONNX Runtime: 2.40, 2.98 and 2.96 times as
fast at batches of 1, 8 and 64, 3.83 times smaller; StableHLO 1.28, 1.38 and 1.19 times
(while other programs used both cores: a load of 10).

    python run.py --config=configs/deploy.py --workdir=/tmp/deploy
    python run.py --config=configs/deploy.py:litert --workdir=/tmp/litert
    python run.py --config=configs/deploy.py:smoke --workdir=/tmp/smoke

`litert` needs `requirements-litert.txt`, too. On one core (dense 99.17 %) its integer
files give the classes that JAX gives, 99.17 and 99.72 %, with all 5 contractions in
int8, and are 3.79 times smaller than LiteRT's floats. With one thread they are 3.78 and
3.59 times as fast at batches of 1 and 8 after training, 4.76 and 3.84 aware; other jobs
ran, and 64 could not be timed.
"""

from configs import common


def smoke(config):
    """Shrinks the model too: convolutions take long to compile."""
    config.dense.model.widths = (8, 16)
    config.dense.model.depth = 1
    config = common.smoke(config)
    config.export.batch_sizes = (1, 8)
    config.export.threads = (1,)
    return config


def litert(config):
    """Writes LiteRT's files too."""
    config.export.targets += ("litert_float32", "litert_int8")
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "post_training", "aware"))
    augment = ("rotate", "shift")
    config.quantize.bits = 8
    config.fake_quantize.points = "means"
    config.dense = common.stage(
        model=common.model("cnn", widths=(64, 128), depth=2, dropout=0.1),
        objective=("cross_entropy", "l2"),
        augment=augment,
        steps=1500,
        learning_rate=3e-3,
        ema=0.99,
    )
    config.post_training = common.stage(
        start="dense",
        prepare=("fold_batch_norm",),
        transforms=("quantize",),
        program=("fake_quantize",),
        steps=0,
    )
    config.aware = common.stage(
        start="dense",
        transforms=("quantize",),
        program=("fake_quantize",),
        augment=augment,
        steps=500,
        learning_rate=1e-3,
        use="best",
    )
    config.export.targets = (
        *("packed", "safetensors", "stablehlo_float32", "stablehlo"),
        *("onnx_float32", "onnx_int8"),
    )
    config.export.stages = ("post_training", "aware")
    config.export.threads = (1, 2)
    return common.variant(arg, config, litert=litert, smoke=smoke)
