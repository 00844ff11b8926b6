"""A sentiment classifier from MiniLM, and a student of half its layers and heads.

Teacher: all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; Apache-2.0), six blocks
of width 384, fine-tuned on SST-2 (Socher et al. 2013). `teacher.weights` and
`data.text.vocabulary` are folders as Hugging Face lays them out. The sentences are a
folder of `train.tsv`, `dev.tsv` and `test-labeled.tsv` with columns sentence and label;
`:glue` takes GLUE's from TFDS instead, whose dev split is the test.

`student` keeps blocks 1, 3 and 5 (DistilBERT's way, Sanh et al. 2019, 1910.01108) and
the half of their heads that the loss misses least. It learns from the teacher's logits,
embeddings and hidden states (TinyBERT, 1909.10351) and from its relations among
queries, keys and values (MiniLMv2, 2012.15828), with L2. `quantized` has weights,
embeddings and activations in 8 bits.

Expect (seed 0, the 1,821 sentences of the test split): teacher 89.35 % in 75.1 MB,
student 86.71 % in 54.4 MB and 2.4 times as fast (8 sentences of 64 tokens in 12.7
instead of 30.5 ms), quantized 86.33 % in 14.3 MB, 5.3 times smaller. 11.7 of the
student's 16.4 million weights are its embeddings. Time: 19 minutes of CPU on AMD EPYC,
2 cores, Python 3.11, JAX 0.10.2. `configs/tune_grid.py:heads` tries blocks and heads.

    python run.py --config=configs/text_classification.py --workdir=/tmp/sst2 \
        --config.data.name=FOLDER --config.teacher.weights=MINILM
    python run.py --config=configs/text_classification.py:smoke --workdir=/tmp/smoke
    python run.py --config=configs/text_classification.py:glue --workdir=/tmp/glue
    python run.py --config=configs/text_classification.py:scratch --workdir=/tmp/small
    python run.py ... --config.data.text.stop_words=english

What stop words cost or gain is what `configs/benchmarks/stop_words.py` measures.
"""

from configs import common

EMBEDDED = r"(^|/)(kernel|embedding)(/|$)"


def glue(config):
    """SST-2 as TFDS has it, whose test labels are secret: its dev split is the test."""
    config.data.update(dict(name="glue/sst2", validation="", test="validation"))
    return config


def scratch(config):
    """Without weights from outside: a small encoder and a vocabulary, both trained."""
    config.data.text.update(dict(vocabulary="", size=8000, buckets=(8, 16, 32)))
    config.teacher.update(dict(weights="", fresh="", unused="", steps=2000))
    small = dict(width=128, heads=4, intermediate=256, vocabulary=8000, separator=-1)
    config.teacher.model.update(dict(layers=2, types=0, **small))
    config.student.model.update(dict(layers=1, types=0, **small))
    config.student.layers = (1,)
    config.hidden.pairs = (("block_0", "block_1"),)
    config.minilm.heads = 2
    for name in config.stages:
        config[name].batch_size = 64
        config[name].learning_rate = 5e-4
    return config


def smoke(config):
    """Shrinks to seconds: small models with fresh weights, on phrases made by rules."""
    config = common.smoke(config)
    config.data.update(dict(name="phrases", validation="", test="test"))
    config.data.text.update(dict(vocabulary="", max_length=16, buckets=(8,)))
    config.teacher.weights = config.teacher.fresh = config.teacher.unused = ""
    small = dict(width=16, heads=2, intermediate=32, vocabulary=200, separator=-1)
    config.teacher.model.update(dict(layers=2, types=0, **small))
    config.student.model.update(dict(layers=1, types=0, **small))
    config.student.layers = (1,)
    config.hidden.pairs = (("block_0", "block_1"),)
    config.minilm.heads = 1
    config.shrink.batches = config.fake_quantize.batches = 2
    for name in config.stages:
        config[name].learning_rate = 1e-3
    return config


def get_config(arg=""):
    config = common.base(stages=("teacher", "student", "quantized"))
    config.data.update(
        dict(
            name="~/.cache/pare/sst2",
            kind="text",
            validation="dev",
            test="test-labeled",
        )
    )
    config.data.text.update(
        dict(
            vocabulary="~/.cache/pare/all-MiniLM-L6-v2",
            max_length=64,
            buckets=(16, 32),
        )
    )
    config.eval_batch_size = 64
    config.log_every, config.save_every = 50, 250
    config.latency.batch_size = 8
    config.latency.repeats = 10
    model = dict(
        width=384,
        heads=12,
        intermediate=1536,
        vocabulary=30522,
        separator=102,
        types=2,
        pooling="mean",  # as MiniLM's sentences are embedded
        pooler="",
        dropout=0.1,
    )
    config.distill.weight, config.distill.temperature = 1.0, 2.0
    config.hidden.pairs = (("block_0", "block_1"), ("block_1", "block_3"))
    config.hidden.projection = config.embeddings.projection = "identity"
    config.hidden.weight = config.embeddings.weight = 0.1
    config.minilm.relations = ("query", "key", "value")
    config.minilm.heads = 6
    config.minilm.weight = 0.1
    config.l2.weight = 1e-5
    config.shrink.pattern = r"attention/query:1$"  # heads, not their size
    config.shrink.score, config.shrink.batches = "taylor", 16
    config.quantize.bits = 8
    config.quantize.pattern = EMBEDDED
    config.fake_quantize.batches = 16
    config.teacher = common.stage(
        weights="~/.cache/pare/all-MiniLM-L6-v2",
        fresh="^logits/",
        unused="pooler",
        model=common.model("encoder", layers=6, **model),
        steps=1000,
        batch_size=32,
        learning_rate=5e-5,
        warmup=0.1,
        use="best",
    )
    config.student = common.stage(
        start="teacher",
        layers=(1, 3, 5),
        model=common.model("encoder", layers=3, **model),
        prepare=("shrink",),
        teacher="teacher",
        objective=("cross_entropy", "distill", "hidden", "embeddings", "minilm", "l2"),
        steps=1000,
        batch_size=32,
        learning_rate=1e-4,
        warmup=0.1,
        use="best",
    )
    config.quantized = common.stage(
        start="student",
        teacher="teacher",
        objective=("cross_entropy", "distill"),
        transforms=("quantize",),
        program=("fake_quantize",),
        steps=200,
        batch_size=32,
        learning_rate=2e-5,
        use="best",
    )
    return common.variant(arg, config, glue=glue, scratch=scratch, smoke=smoke)
