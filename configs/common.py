"""The base of every config: each key there is, with a value that works.

Order lives in tuples of names, settings in dicts: a `ConfigDict` sorts its keys, and
a field inside a tuple cannot be overridden on the command line.
"""

from ml_collections import ConfigDict

# What runs for seconds is mostly compiled.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0"


def model(name, **fields):
    """Returns the settings of a model: its name and the fields it is built with."""
    return ConfigDict(dict(name=name, **fields))


def stage(**changes):
    """Returns the settings of one stage of `experiments/compress.py`."""
    config = ConfigDict(
        dict(
            start="",  # the stage whose weights it starts from; "" for fresh ones
            model=model("mlp", widths=(300, 100), dropout=0.0),  # of a fresh start
            teacher="",  # the stage that teaches; "" for none
            objective=("cross_entropy",),  # names of terms, settings at the top
            transforms=(),  # names of techniques on weights, chained left to right
            program=(),  # names of techniques on activations
            augment=(),  # names of augmentations, applied left to right
            steps=1000,
            batch_size=32,
            optimizer="adamw",
            learning_rate=1e-3,  # the highest, after the warm-up
            decay="cosine",  # how the learning rate falls
            warmup=0.05,  # share of the steps over which it rises
            weight_decay=0.0,  # of kernels
            momentum=0.9,
            clip=1.0,  # largest global norm of the gradient; 0: no limit
            ema=0.0,  # decay of a moving average of the weights; 0: none
            use="last",  # or "best": the checkpoint that validates best
        )
    )
    config.lock()  # a misspelt key raises
    for key, value in changes.items():
        config[key] = value
    return config


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
                name="digits",  # ours, or any TFDS name
                data_dir="",  # "" for TFDS's default
                validation_fraction=0.15,  # of the official train split
                resident_bytes=2**28,  # larger sets stay on disk and are streamed
                image="image",
                label="label",
                test="test",
                threads=8,  # of the streaming loader
                ahead=16,  # batches it reads ahead
            ),
            # Techniques on weights.
            prune=dict(
                sparsity=0.9,  # fraction removed
                distribution="layerwise",  # or "global", "erk"
                schedule="cubic",  # how it rises; "" prunes at once
                initial=0.0,
                begin=0.0,  # share of the stage's steps
                end=0.7,
                every=10,  # steps between mask updates
                pattern=r"(^|/)kernel(/|$)",
            ),
            keep=dict(pattern=r"(^|/)kernel(/|$)"),  # zeros that are there stay zeros
            quantize=dict(
                bits=4,
                symmetric=True,
                granularity="channel",  # or "tensor", "group"
                group=0,
                pattern=r"(^|/)kernel(/|$)",
            ),
            # Techniques on activations.
            fake_quantize=dict(
                bits=8,
                symmetric=False,
                calibration="minmax",  # or "moving_average"
                decay=0.9,  # of the moving average
                batches=8,  # of training data, to calibrate on
                pattern=".",  # sites that are rounded; the rest stays in float
            ),
            # Terms of objectives.
            cross_entropy=dict(weight=1.0, label_smoothing=0.0),
            distill=dict(weight=0.9, temperature=4.0),
            l1=dict(weight=1e-5, pattern=r"(^|/)kernel(/|$)"),
            l2=dict(weight=1e-4, pattern=r"(^|/)kernel(/|$)"),
            elastic_net=dict(weight=1e-5, l1_ratio=0.5, pattern=r"(^|/)kernel(/|$)"),
            # Augmentations.
            shift=dict(pixels=1, fill="zero"),
            flip=dict(probability=0.5),
            rotate=dict(degrees=10.0, fill="zero"),
            scale=dict(fraction=0.1, fill="zero"),
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
        config[name].steps = steps
        config[name].augment = ()
    config.log_every = steps // 2
    config.save_every = steps
    config.prune.every = 5
    config.xla_flags = FAST_TO_COMPILE
    config.steps_per_call = 1  # compiles faster than a scan
    config.latency.repeats = 5
    config.latency.warmup = 1
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
