"""A picture of what each augmentation makes of a training image.

A row for each, or for those of `sheet.augment`, with the settings that stand under its
name; below, RandAugment's operations one by one. A column for each seed.

    python run.py --config=configs/contact_sheet.py --workdir=/tmp/sheet
    python run.py ... --config.data.name=cifar10 --config.colour.white=255.0 \
        --config.randaugment.white=255.0 --config.erase.white=255.0
    python run.py --config=configs/contact_sheet.py:smoke --workdir=/tmp/smoke

Leaves `contact_sheet.png`. Ten seconds on 2 cores, most of it for compiling.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=""):
    config = common.base(experiment="contact_sheet")
    with config.unlocked():
        config.sheet = ConfigDict(
            dict(
                example=0,  # of the training split; the next one is mixed into it
                seeds=10,  # columns
                augment=(),  # names of augmentations; () for all
                operations=True,  # whether each operation of randaugment has a row
            )
        )
    for name in ("colour", "randaugment", "erase"):
        config[name].white = 16.0  # of the digits
    config.cutout.pixels = 3
    return common.variant(arg, config, smoke=smoke)


def smoke(config):
    config.sheet.augment = ("shift", "colour", "cutmix")
    config.sheet.operations = False
    config.sheet.seeds = 3
    config.xla_flags = common.FAST_TO_COMPILE
    return config
