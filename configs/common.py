"""The base of every config: each key there is, with a value that works.

Order lives in tuples of names, settings in dicts: a `ConfigDict` sorts its keys, and
a field inside a tuple cannot be overridden on the command line.
"""

from ml_collections import ConfigDict

# What runs for seconds is mostly compiled.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0"


def model(name="", **fields):
    """Returns the settings of a model: its name and the fields it is built with.

    A Linen module of your own has a `factory` for a name:
    `model(factory="my_package.my_module:MyModel", width=64)`.
    """
    return ConfigDict(dict(name=name, **fields) if name else fields)


def stage(**changes):
    """Returns the settings of one stage of `experiments/compress.py`."""
    config = ConfigDict(
        dict(
            start="",  # the stage whose weights it starts from; "" for fresh ones
            weights="",  # to start from another library's: a file, a folder or a name
            # of the Hugging Face hub; "" for none
            fresh="",  # pattern of our weights that stay fresh all the same, such as
            # "^logits/"; "" for none
            unused="",  # pattern of their weights that are left out; "" for none
            layers=(),  # which blocks, from 0, of the stage it starts from, or of the
            # weights, become this stage's own model's; () for all
            model=model("mlp", widths=(300, 100), dropout=0.0),  # unless it is that
            # of the stage it starts from
            teacher="",  # the stage that teaches, or several, "one,two", whose logits
            # are averaged; "self": its own average (needs ema); "" for none
            cache=0,  # the teacher's largest logits of an example, kept on disk: it
            # runs once, over images not augmented, and not in each step; 0: not kept
            cache_path="",  # their file, for other runs, too, of the same data and
            # teachers; "": in the workdir
            objective=("cross_entropy",),  # names of terms, settings at the top
            prepare=(),  # names of changes of weights before all else, left to right:
            # "shrink", "drop", "fold_batch_norm", "equalize", "smooth", "awq",
            # "correct_bias", "reestimate"
            transforms=(),  # names of techniques on weights, chained left to right
            program=(),  # names of techniques on activations
            augment=(),  # names of augmentations, applied left to right; "mixup" and
            # "cutmix" after the others
            steps=1000,
            batch_size=32,
            optimizer="adamw",
            learning_rate=1e-3,  # the highest, after the warm-up
            decay="cosine",  # how the learning rate falls; "steps" as the next two say
            drops=(1 / 3, 2 / 3),  # shares of the steps at which it falls
            drop_factor=0.1,  # what it is multiplied by there; by "exponential" in all
            warmup=0.05,  # share of the steps over which it rises
            weight_decay=0.0,  # of kernels
            growing=False,  # True: the decay rises from 0 over the stage's steps
            momentum=0.9,
            clip=1.0,  # largest global norm of the gradient; 0: no limit
            ema=0.0,  # decay of a moving average of the weights; 0: none
            freeze_norm=1.0,  # share of the steps from which batch norm's statistics
            # rest and are used, and dropout, which has the same switch, stops; 1: never
            use="last",  # or "best": the checkpoint that validates best
            patience=0,  # validations (every save_every steps) without a new best after
            # which a stage ends early; needs use "best"; 0: it takes all its steps
        )
    )
    config.lock()  # a misspelt key raises
    teacher = changes.pop("teacher", "")
    if isinstance(teacher, tuple):  # text, so that a command line may name several, too
        teacher = ",".join(teacher)
    config.teacher = teacher
    for key, value in changes.items():
        config[key] = value
    return config


def export(targets, **more):
    """Returns the settings of files for other runtimes."""
    return ConfigDict(
        dict(
            targets=targets,  # kinds of file, such as "onnx_int8"; () for none
            # Files take turns in one process for each number of threads.
            threads=(1,),
            batch_sizes=(1, 8, 64),
            repeats=50,
            warmup=5,
            **more,
        )
    )


def base(experiment="compress", stages=()):
    """Returns the locked base with every key; a delta changes values only.

    Args:
      experiment: what run.py runs.
      stages: names, in order; each gets a sub-config of its name, as `stage()` makes.
    """
    config = ConfigDict(
        dict(
            experiment=experiment,
            seed=0,
            xla_flags="",  # for XLA, as in the environment variable XLA_FLAGS
            parallel="jit",  # over a mesh of all local devices; or "pmap"
            steps_per_call=0,  # of one compiled call; 0 chooses
            log_every=50,  # steps between records of metrics
            save_every=200,  # steps between validations and checkpoints
            stages=tuple(stages),
            data=dict(
                name="digits",  # ours; a file or a folder; "sklearn/iris"; any of TFDS
                kind="image",  # of the data; or "text", "table"
                data_dir="",  # "" for TFDS's default
                train="train",  # names of the set's splits
                validation="",  # "" draws a part of the train split
                test="test",  # "" draws a part of the train split
                validation_fraction=0.15,  # of the train split, where it is drawn
                test_fraction=0.2,  # the same
                resident_bytes=2**28,  # larger sets stay on disk and are streamed; of
                # texts, their ids, from a temporary file (in TMPDIR)
                kept_bytes=2**30,  # of images; larger ones are decoded in every epoch
                image="image",
                label="label",
                only=(),  # names of classes that are kept; () for all
                normalisation="measured",  # or "imagenet", for weights trained so
                image_shape=(),  # (H, W, C) to resize to, C from 1 to 3 or back
                resize_by="stretch",  # or "crop", "pad": of other proportions
                resample="bilinear",  # or "bicubic"
                corrupt="error",  # or "skip": images in folders that cannot be read
                table=dict(
                    columns=(),  # that inputs are made of; () for all but the label
                    categorical=(),  # columns whose numbers name categories
                    impute="median",  # or "mean", "most_frequent", "constant": 0
                    standardise=True,
                    select="",  # or "variance", "mutual_information", "l1", "rfe"
                    keep=0.0,  # features, or a fraction of them; 0: by threshold
                    threshold=0.0,  # scores of kept features are above it
                    inverse_strength=1.0,  # of the penalty of l1 and rfe
                    seed=0,  # of the selection
                ),
                text=dict(  # of kind "text"
                    fields=("sentence",),  # of a row; two for pairs of texts
                    tokenizer="wordpiece",  # or "bpe", "unigram"
                    vocabulary="",  # BERT's vocab.txt, a tokenizer.json, or a folder
                    # with one, of as many tokens as weights from outside embed; ""
                    # trains one on the training part
                    size=8000,  # tokens of one that is trained, at most
                    lowercase=True,
                    stop_words="",  # words taken out: "english", or a file with one a
                    # line; "" for none
                    max_length=64,  # tokens of a text, with those that frame it
                    buckets=(),  # shorter lengths that batches of short texts have
                    too_long="cut",  # or "error"
                    pad="",  # the token that pads; "" for the vocabulary's own
                ),
                threads=8,  # of the streaming loader
                ahead=16,  # batches it reads ahead
            ),
            # Preparations; fold_batch_norm and equalize have no settings.
            shrink=dict(
                fraction=0.5,  # of the units of each group removed, rounded up; with
                # scope "group" a whole number is that many of each
                pattern=".",  # groups that are cut: channels, neurons, heads
                rules=(),  # pairs (pattern, fraction), instead of one fraction
                score="l1",  # or "l2", "scale" of norms, "random"; or, measured on
                # batches, "taylor", "fisher", "activation", "apoz"
                scope="group",  # or "global": the least of all groups together;
                # "curves": of each group the share that changes outputs least
                multiple=1,  # kept units are a multiple of it
                floor=1,  # units of each group that are kept in any case
                budget="",  # or "macs", "latency", of two images on this machine: the
                # fraction that meets the target is found
                target=0.5,  # share of what it costs before
                batches=8,  # of training data, to measure on
                seed=0,  # of the random order
            ),
            drop=dict(
                count=1,  # residual branches dropped: those the loss misses least
                pattern=".",  # branches that may go
                batches=8,  # of training data, to measure on
            ),
            smooth=dict(
                alpha=0.5,  # how much of the outliers moves into the weights
                batches=8,  # of training data, to measure activations on
                pattern=".",  # contractions whose inputs are smoothed
            ),
            awq=dict(
                points=20,  # of alpha that are tried, from 0 to 1
                batches=8,  # of training data, to measure activations on
                pattern=".",  # contractions whose weights are scaled
            ),
            correct_bias=dict(
                batches=8,  # of training data, to measure outputs on
                pattern=".",  # contractions whose outputs are corrected
            ),
            reestimate=dict(
                batches=32,  # of training data, for batch norms
                augment=(),  # names: those that the weights were trained with
            ),
            # Techniques on weights.
            prune=dict(
                sparsity=0.9,  # fraction removed
                distribution="layerwise",  # or "global", "erk", "lamp", "output"
                score="magnitude",  # or "random", "taylor", "movement", "fisher"; or,
                # measured before it trains, "snip", "grasp", "synflow", "obd", "wanda"
                batches=4,  # of training data, to measure on
                rounds=100,  # of synflow
                shape="unstructured",  # or "2:4", blocks "4x1", "channel"
                decay=0.9,  # of the moving averages of taylor and fisher
                seed=0,  # of the random order
                rewind=False,  # start over when masks move, as lottery tickets do
                rewind_step=0,  # from the weights after so many steps
                schedule="cubic",  # how it rises; "" prunes at once
                initial=0.0,
                begin=0.0,  # share of the stage's steps
                end=0.7,
                every=10,  # steps between mask updates
                rules=(),  # pairs (pattern, sparsity), instead of one sparsity
                pattern=r"(^|/)kernel(/|$)",
            ),
            sparsegpt=dict(
                sparsity=0.5,  # fraction removed, at once
                dampening=0.01,  # of the Hessian, as a share of its mean diagonal
                block=128,  # inputs whose mask is chosen at once
                shape="unstructured",  # or "2:4"
                batches=32,  # of training data, to measure the inputs on
                pattern=r"(^|/)kernel(/|$)",
            ),
            gptq=dict(
                bits=4,
                symmetric=True,
                granularity="channel",  # or "tensor", "group"
                group=0,
                dampening=0.01,  # of the Hessian, as a share of its mean diagonal
                order="activation",  # largest inputs first; or "natural"
                range="mse",  # what rounds best to the nearest; or "max"
                block=128,  # inputs between updates of all others: for speed alone
                batches=32,  # of training data, to measure the inputs on
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            adaround=dict(
                bits=4,
                symmetric=True,
                granularity="channel",  # or "tensor", "group"
                group=0,
                range="mse",  # what rounds best to the nearest; or "max"
                steps=1000,  # of Adam, for each leaf
                learning_rate=0.03,
                strength=10.0,  # of the push to a side; 1: as much as the error
                beta=(20.0, 2.0),  # its exponent, from the first step to the last
                batches=32,  # of training data, to measure the inputs on
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            soft_movement=dict(
                threshold=0.45,  # on sigmoid(score), which starts at 0.5
                rate=3.0,  # learning rate of the scores
                strength=20.0,  # of the penalty that pulls scores down
                pattern=r"(^|/)kernel(/|$)",
            ),
            keep=dict(pattern=r"(^|/)kernel(/|$)"),  # zeros that are there stay zeros
            quantize=dict(
                bits=4,
                symmetric=True,
                granularity="channel",  # or "tensor", "group"
                group=0,
                range="max",  # or "mse": what rounds best, chosen after each step
                rounding="nearest",  # or, in training, "stochastic"
                schedule="",  # how bits fall, whole ones, as "linear"; "": at once
                initial=8,  # bits of the schedule's beginning
                begin=0.0,  # share of the stage's steps
                end=0.5,
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            levels=dict(
                format="nf4",  # or "binary", "ternary", "e4m3", "e5m2", "e2m1",
                # "pow2_3" to "pow2_6", "apot_3" to "apot_8"
                scale="max",  # or "power", "mse"; of binary "mean", of ternary "twn"
                granularity="channel",  # or "tensor", "group"
                group=0,
                rules=(),  # pairs (pattern, format), instead of one format
                pattern=r"(^|/)kernel(/|$)",
            ),
            binary_connect=dict(
                stochastic=False,  # True: each step draws the signs
                inference="binary",  # or "real": tested with the latent weights
                height=0.0,  # weights are this or minus this; 0: each leaf's own
                pattern=r"(^|/)kernel(/|$)",
            ),
            lsq=dict(
                bits=4,
                symmetric=True,  # False: one negative code more, as in the paper
                granularity="channel",  # or, as in the paper, "tensor"
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            dorefa=dict(
                bits=4,
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            rigl=dict(
                sparsity=0.9,  # fraction removed, at every step
                distribution="erk",  # or "layerwise"
                fraction=0.3,  # of the kept weights, exchanged at first
                every=20,  # steps between exchanges; the paper's 100 are of long runs
                end=0.75,  # share of the stage's steps; the masks rest from there on
                seed=0,  # of the first masks
                rules=(),  # pairs (pattern, sparsity), instead of one sparsity
                pattern=r"(^|/)kernel(/|$)",
            ),
            set=dict(
                sparsity=0.9,  # fraction removed, at every step
                distribution="erk",  # or "layerwise"
                fraction=0.3,  # of the kept weights, exchanged each time
                every=20,  # steps between exchanges; the paper's are an epoch apart
                end=0.75,  # share of the stage's steps; the masks rest from there on
                seed=0,  # of the first masks
                pattern=r"(^|/)kernel(/|$)",
            ),
            ste=dict(
                sparsity=0.9,  # fraction removed in the forward pass
                rules=(),  # pairs (pattern, sparsity), instead of one sparsity
                distribution="layerwise",  # or "global", "erk"
                schedule="cubic",  # how it rises; "" is there from the first step
                initial=0.0,
                begin=0.0,  # share of the stage's steps
                end=0.5,
                every=1,  # steps between mask updates
                pattern=r"(^|/)kernel(/|$)",
            ),
            sr_ste=dict(
                n=2,  # weights that are kept of every m
                m=4,  # neighbours along the inputs
                decay=2e-4,  # of removed weights
                pattern=r"(^|/)kernel(/|$)",
            ),
            acdc=dict(
                sparsity=0.9,  # fraction removed in sparse phases
                distribution="layerwise",  # or "global", "erk"
                begin=0.1,  # share of the stage's steps: the dense warm-up
                period=100,  # steps of a phase
                end=0.75,  # share of the stage's steps; sparse from there on
                pattern=r"(^|/)kernel(/|$)",
            ),
            l0=dict(
                strength=1e-4,  # lambda / training examples
                groups="in",  # what shares a gate; or "element", "out"
                drop_rate=0.05,  # of the gates to begin with
                pattern=r"(^|/)kernel(/|$)",
            ),
            proximal=dict(
                strength=0.1,  # of the lasso or the group lasso
                learning_rate=1e-3,  # steps shrink by this times the strength
                groups="element",  # or "out", "in"
                pattern=r"(^|/)kernel(/|$)",
            ),
            soft_share=dict(
                strength=1e-5,  # tau / training examples
                components=17,  # the zero component among them
                zero=0.99,  # share of the weights in it, before they are seen
                spread=(250.0, 0.1),  # Gamma prior of the precisions: shape, rate
                zero_spread=(5000.0, 2.0),  # that of the zero component
                collapse=1000,  # steps before weights become means; 0: never
                pattern=r"(^|/)kernel(/|$)",
            ),
            variational=dict(
                strength=7e-4,  # of the KL: 1 / training examples
                threshold=3.0,  # of log alpha, above which a weight is removed
                log_sigma2=-10.0,  # of each weight to begin with
                pattern=r"(^|/)kernel(/|$)",
            ),
            share=dict(
                bits=4,  # of an index: at most 2**bits values, 0 among them
                start="linear",  # of k-means; or "density", "random"
                scope="leaf",  # or "global": one codebook for all leaves
                trained=True,  # False: the values stay as k-means found them
                iterations=100,  # the most steps of k-means
                seed=0,  # of the start "random"
                rules=(),  # pairs (pattern, bits), instead of one number of bits
                pattern=r"(^|/)kernel(/|$)",
            ),
            product=dict(
                dim=4,  # weights a vector, neighbours along the inputs
                bits=6,  # of an index: at most 2**bits vectors a leaf
                iterations=25,  # the most steps of k-means
                seed=0,  # of its start
                pattern=r"(^|/)kernel(/|$)",
            ),
            fixed=dict(pattern=r"^(?!logits/)"),  # leaves that are not trained
            tie=dict(
                layers=r"block_(\d+)/",  # its group is the layer's number
                pattern=".",  # of the leaves in layers: which are shared
                every=0,  # so many consecutive layers share; 0: all of them
                paths=(),  # instead of layers = "": leaves by their full paths
                start="first",  # or "mean": of the layers' weights
            ),
            factorize=dict(
                rank=0,  # of each leaf; give one of rank, energy and budget
                energy=0.0,  # share of each leaf's squared singular values to keep
                budget=0.3,  # share of all leaves' weights that the factors may hold
                residual=False,  # True: train what the factors leave out, too
                weighting="",  # or "activations": best for the inputs, measured on
                batches=32,  # of training data
                rules=(),  # pairs (pattern, rank), instead of one rank; budget=0 then
                pattern=r"(^|/)kernel(/|$)",
            ),
            tucker=dict(
                rank_in=0,  # give both ranks, or an energy
                rank_out=0,
                energy=0.9,  # share of squared singular values to keep, each side
                pattern=r"conv[^/]*/kernel(/|$)",
            ),
            cp=dict(
                rank=16,
                iterations=200,  # sweeps of alternating least squares
                pattern=r"conv[^/]*/kernel(/|$)",
            ),
            lora=dict(
                rank=4,
                alpha=8.0,  # how far the change goes, as a multiple of the rank
                seed=0,  # of the factors' first values
                pattern=r"(^|/)kernel(/|$)",
            ),
            # Techniques on activations.
            fake_quantize=dict(
                bits=8,
                symmetric=False,
                calibration="minmax",  # or "moving_average"; or, from a histogram,
                # "percentile", or for this grid "mse", "entropy"; or "fixed"
                decay=0.9,  # of the moving average
                bounds=(0.0, 1.0),  # smallest and largest, of calibration "fixed"
                percent=99.99,  # of the values that percentile keeps at each end
                batches=8,  # of training data, to calibrate on
                points="inputs",  # of contractions; or "adds": of residual sums too;
                # or "means": of means of what came out of both, too
                range="static",  # of calibration; or of each call: "dynamic", "token"
                learn="",  # how ranges are trained: "pact", "lsq", "lsq+"; "": not
                shrink=0.0,  # lambda of PACT's penalty on learned ranges
                begin=0.0,  # share of the stage's steps before which nothing is rounded
                track=False,  # ranges follow the training batches, by decay
                rules=(),  # pairs (pattern, bits), instead of pattern and bits
                pattern=".",  # sites that are rounded; the rest stays in float
            ),
            # Terms of objectives.
            cross_entropy=dict(weight=1.0, label_smoothing=0.0),
            squared_hinge=dict(weight=1.0),
            distill=dict(weight=0.9, temperature=4.0),
            # A pair is (student's feature, teacher's feature); "logits" is one, too.
            dkd=dict(
                weight=1.0,
                target=1.0,  # of label against all others
                others=8.0,  # of the others among themselves
                temperature=4.0,
            ),
            dist=dict(
                weight=1.0,
                inter=1.0,  # of correlations over an example's classes
                intra=1.0,  # of those over a class's examples
                temperature=4.0,
            ),
            born_again=dict(
                weight=1.0,
                kind="dkpp",  # or "cwtm"; the plain kind is distill at temperature 1
            ),
            hint=dict(weight=1.0, pairs=(("pooled", "pooled"),)),
            attention_transfer=dict(
                weight=5.0, pairs=(("stage_1", "stage_1"),), power=2.0
            ),
            similarity=dict(weight=100.0, pairs=(("pooled", "pooled"),)),
            rkd_distance=dict(weight=1.0, pairs=(("pooled", "pooled"),)),
            rkd_angle=dict(weight=2.0, pairs=(("pooled", "pooled"),)),
            correlation=dict(
                weight=10.0,
                pairs=(("pooled", "pooled"),),
                gamma=0.4,
                order=2,  # of the kernel's Taylor series
            ),
            crd=dict(
                weight=0.1,
                pairs=(("pooled", "pooled"),),
                size=128,  # of the space that both are mapped to
                temperature=0.07,
                negatives="classes",  # those of other classes; or "all" others
            ),
            self_distill=dict(
                weight=1.0,
                features=("stage_0",),  # which get an exit
                share=0.3,  # of the last layer's part; the rest is the label's
                temperature=3.0,
            ),
            hidden=dict(
                weight=1.0,
                pairs=(("block_0", "block_1"), ("block_1", "block_3")),
                projection="learned",  # or "identity"
                distance="mse",  # or "unit", of vectors of length 1; "cosine"
                tokens="all",  # or "first"
            ),
            embeddings=dict(
                weight=1.0,
                pairs=(("embed", "embed"),),
                projection="learned",  # or "identity"
            ),
            attention_scores=dict(
                weight=1.0, pairs=(("scores_0", "scores_1"), ("scores_1", "scores_3"))
            ),
            minilm=dict(
                weight=1.0,
                student=-1,  # the number of its block; -1: the last
                teacher=-1,
                relations=("scores", "value"),  # or "query", "key"
                heads=0,  # into which queries, keys, values are split anew; 0: not
            ),
            l1=dict(weight=1e-5, pattern=r"(^|/)kernel(/|$)"),
            l2=dict(weight=1e-4, pattern=r"(^|/)kernel(/|$)"),
            elastic_net=dict(weight=1e-5, l1_ratio=0.5, pattern=r"(^|/)kernel(/|$)"),
            group_lasso=dict(
                weight=1e-4,
                groups="in",  # or "out", "both"
                pattern=r"(^|/)kernel(/|$)",
            ),
            # Augmentations.
            shift=dict(pixels=1, fill="zero"),
            flip=dict(probability=0.5),
            rotate=dict(degrees=10.0, fill="zero"),
            scale=dict(fraction=0.1, fill="zero"),
            crop=dict(
                area=0.08,  # least share of the area, of 1 at the most
                aspect=4 / 3,  # largest change of width : height, and of its inverse
            ),
            colour=dict(
                brightness=0.4,  # a factor of up to 1 ± this
                contrast=0.4,  # likewise
                saturation=0.4,  # likewise
                hue=0.1,  # turns of the colour circle, 0.5 at the most
                white=255.0,  # the brightest pixel; 16 for the digits
            ),
            cutout=dict(pixels=8, fill="mean"),  # side of the square; or "zero"
            erase=dict(
                probability=0.5,
                smallest=0.02,  # share of the area
                largest=0.4,
                aspect=10 / 3,  # largest height : width, and its inverse
                fill="noise",  # or "zero", "mean"
                white=255.0,
            ),
            randaugment=dict(
                count=2,  # operations, N of the paper
                magnitude=9.0,  # M of the paper, of 10
                operations=(),  # that are drawn; () for all
                fill="zero",  # or "edge"
                white=255.0,
            ),
            # Of pairs in the prepared batch.
            mixup=dict(alpha=0.2, probability=1.0),
            cutmix=dict(alpha=1.0, probability=0.5),
            # Files for other runtimes, written when all stages are finished.
            export=export(
                targets=(),
                stages=(),  # that are written; () for the last one
                whole="",  # whose floats are written; "" for the one all started from
            ),
            # Measuring.
            eval_batch_size=256,
            latency=dict(batch_size=256, repeats=30, warmup=5),
        )
    )
    for name in stages:
        config[name] = stage()
    config.lock()
    return config


def smoke(config, steps=20):
    """Shrinks a config to seconds: every stage runs, for a few steps each.

    Without augmentation, which takes longer to compile than all else.
    """
    for name in config.stages:
        config[name].steps = min(config[name].steps, steps)  # 0 stays
        config[name].augment = ()
    config.log_every = steps // 2
    config.save_every = steps
    config.prune.every = 5
    config.xla_flags = FAST_TO_COMPILE
    config.steps_per_call = 1  # compiles faster than a scan
    for timed in (config.latency, config.export):
        timed.repeats = 5
        timed.warmup = 1
    return config


def variant(arg, config, **variants):
    """Returns `config` as the text after the colon of `--config=FILE.py:ARG` asks.

    Args:
      arg: "" for the config as it is, or a name of `variants`.
      config: the full config.
      **variants: name -> function that changes the config.
    """
    if not arg:
        return config
    if arg not in variants:
        names = ", ".join(sorted(variants))
        # Not a ValueError: ml_collections would put its traceback into the message.
        raise LookupError(f"unknown variant {arg!r} of the config; valid: {names}")
    return variants[arg](config)


def tune(base, search, **changes):
    """Returns the config of a search over the fields of another config.

    Args:
      base: that config, `FILE.py[:variant]`.
      search: rows (path, kind, low, high) or (path, "choice", values). A path is that
        of a field, as "prune.sparsity", or a tuple of them, whose values are tuples,
        too. Kinds: "float", "log_float", "int" (with a step after high, or without),
        "log_int", "choice".
      **changes: of the settings below.
    """
    config = ConfigDict(
        dict(
            experiment="tune",
            xla_flags="",
            tune=dict(
                base=base,
                fixed=(),  # pairs (path, value) that all trials have
                search=search,
                # Pairs (what, direction). What: "validation_accuracy",
                # "validation_loss", "file_bytes", "macs", "nonzero", "milliseconds".
                objectives=(("validation_accuracy", "maximize"),),
                trials=20,  # of all workers; 0: a whole grid
                sampler="tpe",  # or "grid", "random", "gp", "cmaes", "nsga2"
                pruner="none",  # or "median", "asha", "hyperband"
                population=0,  # trials that are trained as one program, where they
                # differ in values only; 0: one by one
                form="auto",  # of a population; or "sequential", "vmapped", "sharded"
                seed=0,
                best=3,  # at most so many of the front are measured on the test split
                shared=(),  # first stages, which are the same in all trials: trained
                # once, or taken from the folder of a finished run, with its data
                run="",
                # Workers: the same command, with the same storage.
                storage="",  # a file in the workdir; or "postgresql://USER@HOST/NAME",
                # "mysql+pymysql://USER@HOST/NAME", "sqlite:///FILE"
                study="pare",  # its name there
                stale=60.0,  # seconds of silence after which a worker is dead
                tries=3,  # of one trial, before it is given up
                # Optuna's samplers and pruners.
                random=dict(),
                tpe=dict(n_startup_trials=10, multivariate=True),
                gp=dict(n_startup_trials=10),
                cmaes=dict(n_startup_trials=5),
                nsga2=dict(population_size=20),
                median=dict(n_startup_trials=5, n_warmup_steps=0),
                # Resources are thousandths of a stage, whatever its steps.
                asha=dict(min_resource=100, reduction_factor=3),
                hyperband=dict(min_resource=100, reduction_factor=3),
            ),
        )
    )
    config.lock()
    for key, value in changes.items():
        config.tune[key] = value
    return config


def smoke_tune(config, trials=1):
    """Shrinks a search to seconds: its base's smoke variant, a few trials."""
    config.xla_flags = FAST_TO_COMPILE
    config.tune.base = config.tune.base.split(":")[0] + ":smoke"
    config.tune.run = ""
    config.tune.trials = trials
    config.tune.best = 1
    return config
