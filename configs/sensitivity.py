"""Which layers mind compression: sparsity, bits, rank, clusters, one at a time.

On the validation examples of a finished stage, without fine-tuning. A heat map and
tables; seconds for a small network.

    python run.py --config=configs/sensitivity.py --workdir=/tmp/sensitivity \
        --config.run=/tmp/quickstart --config.stage=student
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: two strengths of each."""
    config.xla_flags = common.FAST_TO_COMPILE
    config.strengths.sparsity = (0.5, 0.9)
    config.strengths.bits = (2, 8)
    config.strengths.rank = (0.1, 0.5)
    config.strengths.clusters = (2, 16)
    return config


def get_config(arg=""):
    config = ConfigDict(
        dict(
            experiment="sensitivity",
            xla_flags="",
            run="",  # the folder of a finished run
            stage="",  # the name of one of its stages
            techniques=("sparsity", "bits", "rank", "clusters"),
            strengths=dict(
                sparsity=(0.5, 0.7, 0.8, 0.9, 0.95, 0.98),  # fraction removed
                bits=(2, 3, 4, 5, 6, 8),
                rank=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75),  # of a layer's smaller side
                clusters=(2, 4, 8, 16, 32, 64),  # values that a layer's weights share
            ),
            prune=dict(score="magnitude", shape="unstructured"),  # of sparsity
            quantize=dict(  # of bits
                symmetric=True,
                granularity="channel",  # or "tensor"
                range="max",  # or "mse": what rounds best
            ),
            share=dict(start="linear", iterations=100, seed=0),  # of clusters: k-means
            pattern=r"(^|/)kernel(/|$)",  # leaves that are tried
            together=16,  # cells side by side in one call; 1: one after another, which
            # is faster for convolutions on a CPU
            eval_batch_size=256,
        )
    )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
