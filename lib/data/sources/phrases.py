"""Phrases of praise and blame, made by rules: text for a try-out without a network.

Every phrase is a few words of two kinds of film talk, with a word of degree or a "not"
that turns it round; its label is what it says. They teach nobody a language: they show
that a recipe runs, as the digits do for images.
"""

import itertools

import numpy as np

from lib.data import splits
from lib.data.sources.rows import Opened

PRAISE = (
    "charming",
    "gripping",
    "tender",
    "witty",
    "fresh",
    "radiant",
    "wise",
    "moving",
)
BLAME = ("dull", "clumsy", "tired", "hollow", "noisy", "shallow", "bleak", "stale")
THINGS = ("film", "story", "cast", "script", "ending", "score", "plot", "director")
FRAMES = (
    "a {} {}",
    "the {} {} of the year",
    "{} from start to end , this {}",
    "what a {} {} !",
)
DEGREES = ("", "very ", "rather ", "not ")
TEST = 400


class Phrases:
    """Rows of `{'sentence': str, 'label': 0 or 1}`; 1 is praise."""

    def __init__(self, sentences: list[str], labels: np.ndarray):
        """Keeps them."""
        self._sentences, self._labels = sentences, labels

    def __len__(self) -> int:
        """Returns the number of phrases."""
        return len(self._sentences)

    def __getitem__(self, index: int) -> dict[str, str | int]:
        """Returns one row."""
        return {
            "sentence": self._sentences[index],
            "label": int(self._labels[index]),
        }

    def __getitems__(self, indices: list[int]) -> list[dict[str, str | int]]:
        """Returns several rows."""
        return [self[i] for i in indices]


def find() -> Opened:
    """Returns the set: 1,648 phrases to train on, 400 to test on, as often of each."""
    sentences, labels = [], []
    for frame, degree, thing in itertools.product(FRAMES, DEGREES, THINGS):
        for word in (*PRAISE, *BLAME):
            sentences.append(frame.format(degree + word, thing))
            labels.append(int((word in PRAISE) != (degree == "not ")))
    labels = np.array(labels)
    parts = splits.stratified(labels, TEST, splits.SEED)
    rows = {
        name: Phrases([sentences[i] for i in part], labels[part])
        for name, part in zip(("train", "test"), parts, strict=True)
    }
    return Opened(
        "phrases", rows, ("sentence", "label"), {"label": ("blame", "praise")}
    )
