"""Accuracy against bytes: which techniques, in which order, how strong; NSGA-II.

NSGA-II: Deb et al. 2002 (IEEE TEC 6). Over the second stage of `techniques/prune.py`, a
300-100 MLP on the digits: the techniques and their order, sparsity, how it is
distributed over layers, bits. The front at the end is measured on the test split, and
each of its trials is left as a config file that runs as it is.

Expect, in 4 minutes of CPU time (1 seed, 360 test images), a front from 98.89 % in
17,155 bytes to 98.33 % in 6,401 bytes, and below it what is smaller and useless.

    python run.py --config=configs/tune_pareto.py --workdir=/tmp/pareto
    python run.py --config=configs/tune_pareto.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.tune.sampler=tpe
"""

from configs import common


def smoke(config):
    """Shrinks to seconds: one trial."""
    config = common.smoke_tune(config)
    config.tune.fixed = ()
    return config


def get_config(arg=""):
    config = common.tune(
        "configs/techniques/prune.py",
        (
            (
                "compressed.transforms",
                "choice",
                (
                    ("prune",),
                    ("quantize",),
                    ("prune", "quantize"),
                    ("quantize", "prune"),
                    ("prune", "share"),
                ),
            ),
            ("prune.sparsity", "float", 0.5, 0.98),
            ("prune.distribution", "choice", ("layerwise", "erk", "global")),
            ("quantize.bits", "int", 2, 8),
            ("share.bits", "int", 2, 6),
        ),
        fixed=(("compressed.steps", 1000),),
        objectives=(("validation_accuracy", "maximize"), ("file_bytes", "minimize")),
        shared=("dense",),
        sampler="nsga2",
        trials=40,
        best=5,
    )
    return common.variant(arg, config, smoke=smoke)
