"""Teacher, student, pruned, quantized, packed: the whole of Pare on real digits.

Data: scikit-learn's 1,797 handwritten digits of 8x8 pixels (Alpaydin & Kaynak 1998).
Papers: distillation, Hinton 2015 (arXiv 1503.02531); gradual pruning, Zhu & Gupta 2017
(1710.01878); quantization-aware training, Jacob 2018 (1712.05877).

Expect, on 2 CPU cores, in 22 to 27 s (3 seeds, 360 test images): teacher 98.6 to
99.7 %, packed 98.6 to 99.4 % (median 0.28 points below its teacher), 7.7 kB, 72.3 to
72.6 times smaller than the teacher's file and 22.1 times smaller than the student's.

    python run.py --config=configs/quickstart.py --workdir=/tmp/quickstart
    python run.py --config=configs/quickstart.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.prune.sparsity=0.95 --config.quantize.bits=3
"""

from configs import common


def get_config(arg=""):
    config = common.base(stages=("teacher", "student", "pruned", "quantized"))
    config.prune.distribution = "erk"
    config.teacher = common.stage(
        model=common.model("mlp", widths=(512, 256), dropout=0.2),
        augment=("shift",),
        steps=2000,
        weight_decay=0.01,
    )
    config.student = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0),
        teacher="teacher",
        objective=("cross_entropy", "distill"),
        augment=("shift",),
        steps=3000,
        learning_rate=2e-3,
    )
    # Pruned to 90 %, the student has no room left for shifted digits: no augmentation.
    config.pruned = common.stage(
        start="student",
        teacher="teacher",
        objective=("cross_entropy", "distill"),
        transforms=("prune",),
        steps=3000,
        learning_rate=2e-3,
    )
    config.quantized = common.stage(
        start="pruned",
        teacher="teacher",
        objective=("cross_entropy", "distill"),
        transforms=("keep", "quantize"),
        program=("fake_quantize",),
        steps=1500,
    )
    return common.variant(arg, config, smoke=common.smoke)
