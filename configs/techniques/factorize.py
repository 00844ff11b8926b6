"""Low rank on the digits: an MLP's kernels become products of two thin factors.

Truncated SVD: Denton et al. 2014 (arXiv 1404.0736). The ranks come from one budget for
all layers together; `:sparse` keeps what a fixed rank leaves out, pruned to 95 % (low
rank plus sparse), and `:pruned` prunes half of the factors and rounds them to 4 bits.

Expect, on 2 busy CPU cores (AMD EPYC), in 1 to 3 minutes (1 seed, 360 test images):
dense 98.06 % and 281.8 kB with 85.0k weights; packed 98.89 %, 86.0 kB, 25.9k weights;
`:sparse` 98.61 %, 47.3 kB, 13.5k weights; `:pruned` 99.17 %, 12.5 kB (22.5x smaller).

    python run.py --config=configs/techniques/factorize.py --workdir=/tmp/factorize
    python run.py --config=configs/techniques/factorize.py:sparse --workdir=/tmp/sparse
    python run.py --config=configs/techniques/factorize.py:pruned --workdir=/tmp/pruned
    python run.py --config=configs/techniques/factorize.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.factorize.budget=0.2
"""

from configs import common


def sparse(config):
    """Low rank plus sparse: rank 8 of every layer, and a twentieth of the rest."""
    config.compressed.transforms = ("factorize", "prune")
    config.factorize.update(dict(rank=8, budget=0.0, residual=True))
    config.prune.update(dict(sparsity=0.95, schedule="", pattern="rest$"))
    return config


def pruned(config):
    """Half of the weights of the factors go, and 4 bits remain of the others."""
    config.compressed.transforms = ("factorize", "prune", "quantize")
    config.prune.update(dict(sparsity=0.5, schedule=""))
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "compressed"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 256), dropout=0.0),
        augment=("shift",),
        steps=1000,
    )
    config.compressed = common.stage(
        start="dense", transforms=("factorize",), steps=500
    )
    return common.variant(arg, config, smoke=common.smoke, sparse=sparse, pruned=pruned)
