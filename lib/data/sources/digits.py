"""scikit-learn's handwritten digits as a TFDS data set: 1,797 images of 8x8.

A builder of our own rather than arrays handed over from scikit-learn, because its
features are plain tensors: TFDS prepares and reads it without TensorFlow, so the digits
take the same road as every other set. Preparing takes half a second, once, and needs no
network. scikit-learn is never imported, only a file of it is read: the import alone
takes two seconds.

Importing this module registers the set with TFDS under the name `digits`.
"""

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lib.data import splits

_FILE = (
    "datasets/data/digits.csv.gz"  # within scikit-learn: 64 pixels and a label a row
)
TEST = 360  # examples, a fifth, with the classes in proportion


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [1797, 8, 8, 1], and labels: sklearn's `load_digits`."""
    (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
    rows = np.loadtxt(pathlib.Path(package) / _FILE, delimiter=",", dtype=np.uint8)
    return rows[:, :64].reshape(-1, 8, 8, 1), rows[:, 64].astype(np.int64)


class Digits(tfds.core.GeneratorBasedBuilder):
    """Pixels 0 to 16 (UCI's counts of ink), labels 0 to 9, splits train and test."""

    VERSION = tfds.core.Version("1.0.0")
    # No URLs. Said here, because TFDS would look beside this file for a list of them,
    # by way of a package (importlib_resources) that it does not declare.
    url_infos = None
    RELEASE_NOTES = {"1.0.0": "Test split drawn by lib.data.splits.stratified."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8 (UCI 80, by way of scikit-learn).",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        images, labels = _read()
        train, test = splits.stratified(labels, TEST, splits.SEED)
        return {
            "train": self._generate_examples(images, labels, train),
            "test": self._generate_examples(images, labels, test),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in indices:
            yield int(i), {"image": images[i], "label": int(labels[i])}
