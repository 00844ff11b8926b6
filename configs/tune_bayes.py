"""Bayesian search: learning rate and batch size, where earlier trials say what is next.

Tree-structured Parzen estimator: Bergstra et al. 2011 (NeurIPS); `--config.tune.
sampler=gp` is a Gaussian process, and needs PyTorch. Over the student of
`quickstart.py`, without a teacher, on the digits.

Expect, in two minutes of CPU time (1 seed): learning rate 6.2e-3 and batches of 32 have
99.07 % of 216 validation images right, and 98.33 % of 360 test images.

    python run.py --config=configs/tune_bayes.py --workdir=/tmp/bayes
    python run.py --config=configs/tune_bayes.py:smoke --workdir=/tmp/smoke
    python run.py --config=configs/tune_bayes.py:images --workdir=/tmp/images \
        --config.tune.run=FINISHED

Started again in other terminals or on other machines with one `--config.tune.storage`,
the same command adds workers; a worker that is killed loses nothing, as its trial goes
on from the checkpoint.

`images` searches the `tuned` stage of `image_classification.py`, on the `frozen` stage
of a finished run of it; without `tune.run`, that is trained first. Each of 20 trials
sees 25,600 images, a seventh of what the recipe trains on; below the median half way, a
trial ends. Expect 9 that end early, and of the others (1 seed, 6,000 validation images)
91.08 % at 2.8e-3 and batches of 32, 90.57 at 2.7e-3 and 64, 89.45 at 1.5e-3 and 128,
88.73 at 3.2e-3 and 256; the best tested 90.63 % of 10,000. Time: 41 minutes of CPU on 2
cores of an AMD EPYC, Python 3.11, JAX 0.10.2. What is best of short trials need not be
of long ones: on all of the recipe's 192,000 images the first validates 93.58 %, and the
recipe's own 2e-3 and 128 93.83 %, so the recipe keeps those.
"""

from configs import common


def images(config):
    """Learning rate and batch size of the pretrained ResNet's fine-tuning."""
    tune = config.tune
    tune.base = "configs/image_classification.py"
    tune.fixed = (("stages", ("frozen", "tuned")),)
    tune.shared = ("frozen",)
    tune.search = (
        ("tuned.learning_rate", "log_float", 1e-4, 2e-2),
        (
            ("tuned.batch_size", "tuned.steps", "save_every"),
            "choice",  # of 25,600 images each, validated four times
            ((32, 800, 200), (64, 400, 100), (128, 200, 50), (256, 100, 25)),
        ),
    )
    tune.trials = 20
    tune.pruner = "median"
    return config


def smoke(config):
    """Shrinks to seconds: one trial."""
    config = common.smoke_tune(config)
    config.tune.fixed = ALONE  # and as few steps as there are
    return config


ALONE = (
    ("stages", ("student",)),
    ("student.teacher", ""),
    ("student.objective", ("cross_entropy",)),
)


def get_config(arg=""):
    config = common.tune(
        "configs/quickstart.py",
        (
            ("student.learning_rate", "log_float", 1e-4, 3e-2),
            ("student.batch_size", "choice", (16, 32, 64, 128)),
        ),
        fixed=(*ALONE, ("student.steps", 1000)),
        trials=25,
    )
    return common.variant(arg, config, images=images, smoke=smoke)
