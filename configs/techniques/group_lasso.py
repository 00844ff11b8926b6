"""The group lasso on the digits: inputs of every layer die as a whole.

Papers: the group lasso, Yuan & Lin 2006; of channels, Wen et al. 2016 (arXiv
1608.03665). Proximal steps give exact zeros; the term of the same name, in the
variant `term`, gives small ones, which pruning removes.

Strengths were chosen on the validation images: the largest of 3e-4, 1e-3, 2e-3 and 4e-3
that cost less than 2 points there; of the term's, which ends as small, the best.

Expect, on 2 CPU cores (AMD EPYC), in half a minute to a minute (1 seed, 360 test
images): dense 99.44 %, packed 97.22 % with 5,145 of 50,826 weights, 8.8 times smaller;
variant `lasso` 98.61 % with 2,219, 20.8 times smaller; variant `term`, pruned to 90 %,
99.17 %, 8.8 times smaller. Groups of inputs are a rigid bargain for so small a network.

    python run.py --config=configs/techniques/group_lasso.py --workdir=/tmp/group_lasso
    python run.py --config=configs/techniques/group_lasso.py:lasso --workdir=/tmp/lasso
    python run.py --config=configs/techniques/group_lasso.py:term --workdir=/tmp/term
    python run.py --config=configs/techniques/group_lasso.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def lasso(config):
    """Each weight is a group of its own: the lasso."""
    config.proximal.groups = "element"
    return config


def term(config):
    """Puts the penalty in the objective, and prunes what it made small."""
    config.compressed.objective = ("cross_entropy", "group_lasso")
    config.compressed.transforms = ()
    config.group_lasso.weight = 3e-4
    config.tuned.transforms = ("prune",)
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed", "tuned"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0),
        augment=("shift",),
        steps=1500,
        weight_decay=0.01,
    )
    # Plain gradient descent of a constant rate: what the proximal step belongs to.
    config.compressed = common.stage(
        start="dense",
        transforms=("proximal",),
        steps=3000,
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.3,
        decay="constant",
        warmup=0.0,
    )
    config.proximal.learning_rate = 0.3  # the stage's
    config.proximal.groups = "in"
    config.proximal.strength = 2e-3
    config.tuned = common.stage(
        start="compressed", transforms=("keep",), steps=1000, learning_rate=3e-3
    )
    return common.variant(arg, config, smoke=common.smoke, lasso=lasso, term=term)
