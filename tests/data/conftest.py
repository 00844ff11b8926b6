"""Data sets for the tests: prepared once, in temporary folders, without a network."""

import numpy as np
import pytest

from lib.data import dataset, examples, splits


def options(**changes):
    """Returns `load`'s settings for a small set, with changes."""
    return {
        "validation_fraction": 1 / 6,
        "resident_bytes": 1 << 30,
        "image": "image",
        "label": "label",
        "test": "test",
        **changes,
    }


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """`dataset.load` with a data_dir of its own, and defaults for the rest."""
    data_dir = str(tmp_path_factory.mktemp("tfds"))

    def load(name, **changes):
        return dataset.load(name, **options(**{"data_dir": data_dir, **changes}))

    return load


@pytest.fixture(scope="session")
def digits(load):
    return load("digits")


@pytest.fixture
def numbered():
    """A function: n -> Train of n 2x2x1 images; example i has pixels and label i."""

    def make(n, kind=splits.Train):
        labels = np.arange(n, dtype=np.int32)
        images = np.broadcast_to(
            labels.astype(np.uint8)[:, None, None, None], (n, 2, 2, 1)
        )
        return kind(
            "numbered",
            examples.Arrays({"input": images, "label": labels}),
            n,
            (2, 2, 1),
        )

    return make
