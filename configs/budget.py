"""At most 9,000 bytes and 1 point lost: what each layer becomes is found.

On the digits (Alpaydin & Kaynak 1998). Layers are tried one by one at sparsities, bits,
clusters (shared values, Han et al. 2016, arXiv 1510.00149) and ranks (Denton et al.
2014, 1404.0736); a multiple-choice knapsack (Sinha & Zoltners 1979) chooses with exact
bytes, the network is fine-tuned so with its dense self as a teacher, and the file is
measured. Says plainly when it cannot be done, and what is nearest.

Expect, on 2 cores of an AMD EPYC that had other work (Python 3.11, JAX 0.10.2), in 1.4
minutes of CPU time: met by the first choice, 7,835 of 168,749 bytes. A validation image
is 0.46 points (216), a test image 0.28 (360):

    seed, techniques              bytes   points lost   test: dense   packed
    0, all                        7,835   0.00          99.44 %       99.44 %
    0, sparsity and bits          8,485   0.46          99.44 %       98.89 %
    1, all                        8,446   0.46          99.17 %       99.17 %
    1, sparsity and bits          8,446   0.46          99.17 %       99.17 %
    2, all                        8,420   0.00          99.44 %       98.61 %
    2, sparsity and bits          8,864   0.00          99.44 %       99.17 %

At seed 1 the cheapest choice of all lost 1.39 points in 8,931 bytes; sparsity and bits
alone came next. The layers of seed 0: 4 clusters; rank 13 in 3 bits; 0.7 removed and 4
bits. In 5,500 bytes it lost 1.39 points, too, and sparsity and bits alone 0.46, in
5,393 (test 98.06 %).

    python run.py --config=configs/budget.py --workdir=/tmp/budget
    python run.py --config=configs/budget.py:fast --workdir=/tmp/fast
    python run.py --config=configs/budget.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.budget.bytes=4000 --config.budget.points=0.5
    python run.py --config=configs/budget.py:fast ... --config.budget.bytes=12000
    python run.py --config=configs/budget.py:fast ... --config.shrink.scope=curves
    python run.py ... "--config.budget.sensitivity.techniques=('sparsity', 'bits')"

`fast` has a CNN and asks for 3 ms for a batch of 256, whatever the bytes: channels of
the least L1 norm go (Li et al. 2017, 1608.08710), the least share first. In half a
minute, on a quiet machine: 3.8 ms dense, 2.4 to 2.6 with a quarter of its channels cut,
1.5 with half of them, 1.1 with three quarters. The quarter meets it (2.8 ms, 125,266 of
220,081 bytes, no point lost; test 99.72 % dense, 100.00 % cut). At 2 ms half of them do
(1.3 ms, 56,971 bytes, 0.46 points; test 99.72 %); at 1 ms nothing does, and the nearest
point is that half. With bytes=12000, too, in 2.1 minutes of CPU time while the machine
had other work: 2.5 ms and 9,087 bytes, 0.46 points lost; test 99.72 %.

With `shrink.scope=curves` each group of channels has the share that moves the outputs
least. At 2 ms and seeds 0, 1, 2, validation points lost and bytes: 0.00, 0.00, 0.00 in
42,143, 38,995, 41,580, where one share for all has 0.46, -0.46, 0.46 in 56,971, 56,993,
56,997; but half of all channels then takes 1.5, 1.9 and 3.0 ms instead of 1.3, as those
of the large images stay, so the third misses 2 ms.
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: one cut, one attempt, few options of each kind."""
    config = common.smoke(config)
    config.dense.model.widths = (16,)
    for stage in (config.cut, config.small):
        stage.teacher = ""
        stage.objective = ("cross_entropy",)
    config.budget.milliseconds = 0.001  # which nothing is fast enough for
    config.budget.channels = (0.5,)
    config.budget.attempts = 1
    config.budget.sensitivity.techniques = ("sparsity", "bits", "clusters", "rank")
    strengths = config.budget.sensitivity.strengths
    strengths.sparsity, strengths.bits = (0.0, 0.5), (2, 8)
    strengths.clusters, strengths.rank = (4,), (0.25,)
    return config


def fast(config):
    """Asks for less time of a CNN, whatever its bytes."""
    config.budget.bytes = 0
    config.budget.milliseconds = 3.0
    augment = ("rotate", "shift")
    config.dense = common.stage(
        model=common.model("cnn", widths=(32, 64), depth=2, dropout=0.1),
        objective=("cross_entropy", "l2"),
        augment=augment,
        steps=1500,
        learning_rate=3e-3,
    )
    config.cut.prepare = ("shrink", "reestimate")
    config.reestimate.augment = augment
    for stage in (config.cut, config.small):
        stage.augment = augment
        stage.steps = 1000
    return config


def get_config(arg=""):
    config = common.base(experiment="budget", stages=("dense", "cut", "small"))
    config.dense = common.stage(
        model=common.model("mlp", widths=(256, 128), dropout=0.0), steps=2000
    )
    learned = dict(
        start="dense",
        teacher="dense",
        objective=("cross_entropy", "distill"),
        steps=2000,
        learning_rate=2e-3,
    )
    config.cut = common.stage(prepare=("shrink",), **learned)
    config.small = common.stage(**learned)
    with config.unlocked():
        config.budget = ConfigDict(
            dict(
                dense="dense",  # the stage that is compressed
                cut="cut",  # the stage that fine-tunes what is left of its channels
                stage="small",  # the stage that fine-tunes what its layers become
                bytes=9000,  # of the packed file, at most; 0: no limit
                milliseconds=0.0,  # of a batch of latency.batch_size on this machine,
                # the median, at most; 0: no limit
                points=1.0,  # of validation accuracy lost, at most
                channels=(0.25, 0.5, 0.75),  # shares that may be cut to be fast enough
                attempts=4,  # choices that are trained at a cut, at most
                growth=1.5,  # of the bytes, where a choice lost too much
                sensitivity=dict(
                    techniques=("sparsity", "bits", "clusters", "rank"),
                    # Any of sparsity, bits, rank and clusters: what layers may become.
                    strengths=dict(
                        sparsity=(0.0, 0.5, 0.7, 0.8, 0.9, 0.95),  # fraction removed
                        bits=(2, 3, 4, 6, 8),  # of weights, or of a product's factors
                        rank=(0.05, 0.1, 0.2, 0.3, 0.5),  # of a layer's smaller side
                        clusters=(2, 4, 8, 16, 32),  # values that its weights share
                    ),
                    pattern=r"(^|/)kernel(/|$)",  # leaves that have a choice
                    together=16,  # cells side by side in one call
                ),
            )
        )
    config.lock()
    return common.variant(arg, config, fast=fast, smoke=smoke)
