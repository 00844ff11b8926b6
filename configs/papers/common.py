"""What a paper claims, in the form that `experiments/reproduce.py` compares with."""

from ml_collections import ConfigDict


def claim(**changes):
    """Returns a claim; all of it stands in the config, and so in `result.json`."""
    config = ConfigDict(
        dict(
            paper="",  # authors, year, arXiv number, table
            says="",  # the claim in words
            error=0.0,  # per cent wrong on the test split; 0: none claimed
            ratio=0.0,  # times smaller than dense float32 weights; 0: none claimed
            within=0.0,  # per cent that our median error may be above the paper's
            dense="",  # the stage that is our dense reference
            stage="",  # the stage that is compared with the claim
            differs="",  # where our settings are not the paper's
        )
    )
    config.lock()
    for key, value in changes.items():
        config[key] = value
    return config


def attach(config, **changes):
    """Puts a claim into a config of `common.base`."""
    with config.unlocked():
        config.claim = claim(**changes)
    return config


def mnist(config):
    """Makes MNIST the data: 55,000 to train on, 5,000 to choose on, 10,000 to test."""
    config.data.name = "mnist"
    config.data.validation_fraction = 1 / 12
    config.log_every = 500
    config.save_every = 5000
    config.eval_batch_size = 1000
    return config


def digits(config, steps=20):
    """What a smoke variant trains on: data that every machine has."""
    config.data.name = "digits"
    for name in config.stages:
        config[name].batch_size = 32
    return config
