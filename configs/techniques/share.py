"""Deep Compression on the digits: an MLP pruned, then 16 values a layer, fine-tuned.

Paper: Han et al. 2016 (arXiv 1510.00149). Vectors: Stock et al. 2019 (1907.05686).

Expect, on 2 CPU cores (AMD EPYC), in 90 s (1 seed, 360 test images; one image is
0.28 %): dense 99.44 % in 167.8 kB, pruned to 10 % of the weights 99.17 % in 19.8 kB,
compressed 99.44 % in 6.5 kB: 26 times smaller. Of the variants:

    density, random   99.72 %   6.9 kB
    global            99.44 %   6.1 kB   one codebook for the three layers
    fixed             99.17 %   6.5 kB   the values as k-means found them
    bits3             99.44 %   6.0 kB
    bits2             99.17 %   5.3 kB   three values and 0
    product           99.17 %  13.5 kB   not pruned: 64 vectors of 4 weights a layer

    python run.py --config=configs/techniques/share.py --workdir=/tmp/share
    python run.py --config=configs/techniques/share.py:density --workdir=/tmp/density
    python run.py --config=configs/techniques/share.py:product --workdir=/tmp/product
    python run.py --config=configs/techniques/share.py:smoke --workdir=/tmp/smoke
"""

from configs import common


def share(**settings):
    """Returns the variant with these settings of sharing."""

    def change(config):
        config.share.update(settings)
        return config

    return change


def quantized(config):
    """The shared values themselves in 8 bits, one scale a layer."""
    config.compressed.transforms = ("keep", "share", "quantize")
    config.quantize.update(dict(bits=8, granularity="tensor"))
    return config


def product(config):
    """Vectors of 4 weights instead of single ones, and nothing pruned."""
    config.stages = ("dense", "compressed")
    config.compressed.start = "dense"
    config.compressed.transforms = ("product",)
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "pruned", "compressed"))
    model = common.model("mlp", widths=(300, 100), dropout=0.0)
    config.dense = common.stage(model=model, steps=1500)
    config.pruned = common.stage(
        start="dense", model=model, transforms=("prune",), steps=1500
    )
    config.compressed = common.stage(
        start="pruned", model=model, transforms=("keep", "share"), steps=500
    )
    return common.variant(
        arg,
        config,
        smoke=common.smoke,
        density=share(start="density"),
        random=share(start="random"),
        fixed=share(trained=False),
        bits2=share(bits=2),
        bits3=share(bits=3),
        quantized=quantized,
        product=product,
        **{"global": share(scope="global")},
    )
