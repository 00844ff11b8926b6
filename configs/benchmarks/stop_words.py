"""What stop words are worth: sentiment of sentences with all words and without these.

A small encoder and a vocabulary, both trained anew, on SST-2 (Socher et al. 2013) with
all words and without those of scikit-learn's English list, which has "not", "no" and
"never" in it. `compare.stop_words` may name more lists: files with a word a line.

Expect (seeds 0, 1, 2; the 1,821 sentences of the test split): 81.16 % (80.94 to 81.93)
with all words, 79.24 % (78.75 to 79.68) without, with 30 % fewer tokens. Time: 6
minutes of CPU on AMD EPYC, 2 cores, Python 3.11, JAX 0.10.2.

    python run.py --config=configs/benchmarks/stop_words.py --workdir=/tmp/stop_words \
        --config.data.name=FOLDER
    python run.py --config=configs/benchmarks/stop_words.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.compare.stop_words="('english', 'mine.txt')"
"""

from ml_collections import ConfigDict

from configs import common


def smoke(config):
    """Shrinks to seconds: phrases made by rules, a tiny encoder, one seed."""
    config = common.smoke(config)
    config.data.update(dict(name="phrases", validation="", test="test"))
    config.data.text.update(dict(size=200, max_length=16, buckets=(8,)))
    small = dict(layers=1, width=16, heads=2, intermediate=32, vocabulary=200)
    config.dense.model.update(small)
    config.compare.seeds = (0,)
    return config


def get_config(arg=""):
    config = common.base(experiment="stop_words", stages=("dense",))
    config.data.update(
        dict(
            name="~/.cache/pare/sst2",  # train.tsv, dev.tsv, test-labeled.tsv
            kind="text",
            validation="dev",
            test="test-labeled",
        )
    )
    config.data.text.update(dict(size=8000, max_length=64, buckets=(8, 16, 32)))
    config.log_every, config.save_every = 100, 250
    config.dense = common.stage(
        model=common.model(
            "encoder",
            layers=2,
            width=64,
            heads=2,
            intermediate=128,
            vocabulary=8000,
            max_length=64,
            types=0,
            separator=-1,
            pooling="mean",
            pooler="",
            dropout=0.1,
        ),
        steps=1500,
        batch_size=64,
        learning_rate=1e-3,
        warmup=0.1,
        use="best",
    )
    with config.unlocked():
        config.compare = ConfigDict(
            dict(
                stop_words=("english",),  # lists, each as data.text.stop_words
                seeds=(0, 1, 2),
            )
        )
    config.lock()
    return common.variant(arg, config, smoke=smoke)
