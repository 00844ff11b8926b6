"""The three parts of a data set, as three types, and who may look at which.

Training reads `Train`; whatever is chosen (when to stop, which checkpoint is best,
ranges, bits, strengths) is chosen on `Train` or `Validation`; `Test` is only measured.
"""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np

from lib import errors
from lib.data.buckets import Buckets

# One constant for everybody: the parts of a set do not change with a run's own seed, so
# runs of many seeds validate on the same examples, and none trains on another's test.
SEED = 20_181_210


class Source(Protocol):
    """Random access to examples; see `lib.data.examples` and `lib.data.mapped`."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns `{'input': as stored, 'label': int32 []}`, and what else it has."""
        ...

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `{'input': [n, ...], 'label': int32 [n]}`, and what else it has."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set; use one of the three subclasses.

    Attributes:
      name: the data set, for messages.
      source: the examples.
      classes: labels lie in `[0, classes)`.
      shape: of every stored input; `(H, W, C)` of an image.
      buckets: lengths that its texts are cut to in batches; None for one length, but
        of texts that are streamed.

    Raises:
      UserError: there is no example in it.
    """

    part: ClassVar[str]
    name: str
    source: Source
    classes: int
    shape: tuple[int, ...]
    buckets: Buckets | None = None

    def __post_init__(self):
        """Refuses an empty part."""
        if not len(self.source):
            raise errors.UserError(
                f"the {self.part} split of data set {self.name!r} is empty"
            )

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)


class Train(Split):
    """What the weights, and the mean and deviation of the pixels, are fitted to."""

    part = "train"


class Validation(Split):
    """What choices are made on."""

    part = "validation"


class Test(Split):
    """What the reported accuracy is measured on; nothing may be chosen on it."""

    part = "test"
    __test__ = False  # not a test case, whatever its name tells pytest


def may_choose(split: Train | Validation, purpose: str) -> Train | Validation:
    """Returns `split` if a choice may depend on it.

    Every function that chooses something calls this first.

    Args:
      split: what the caller was given to choose on.
      purpose: what is chosen, for the message ("calibration", "the best checkpoint").

    Raises:
      UserError: it is the test split.
    """
    if isinstance(split, Test):
        raise errors.UserError(
            f"{purpose} may not look at the test split of data set {split.name!r}; "
            "choose on its train or validation split"
        )
    if not isinstance(split, Train | Validation):
        raise TypeError(f"{purpose} wants a Train or Validation split, got {split!r}")
    return split


def count(total: int, fraction: float, name: str, part: str) -> int:
    """Returns how many of `total` examples `fraction` of them are.

    Args:
      total: number of examples.
      fraction: in (0, 1).
      name: of the data set, for messages.
      part: "validation" or "test", which is drawn.

    Raises:
      UserError: the fraction is not inside (0, 1), or leaves one of the parts empty.
    """
    if not 0 < fraction < 1:
        raise errors.UserError(
            f"{part}_fraction must lie between 0 and 1, got {fraction}"
        )
    held_out = round(total * fraction)
    if not 0 < held_out < total:
        raise errors.UserError(
            f"the {part if not held_out else 'train'} split of data set {name!r} is "
            f"empty: {part}_fraction {fraction} of {total} examples is {held_out}"
        )
    return held_out


def random(total: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kept, held out) indices into `total` examples, each sorted."""
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def stratified(
    labels: np.ndarray, held_out: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kept, held out) indices with the classes in the same proportions.

    Of a class with n of the N examples, n * held_out / N are held out, rounded down,
    and the classes with the largest remainders (the lowest first) give one more until
    exactly `held_out` are.

    Args:
      labels: integers [N].
      held_out: how many to hold out, in [0, N].
      seed: of the permutation inside each class.
    """
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * held_out, len(labels))
    largest = np.argsort(-remainders, kind="stable")
    quotas[largest[: held_out - quotas.sum()]] += 1
    kept, out = [], []
    for label, quota in zip(classes, quotas, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        out.append(members[:quota])
        kept.append(members[quota:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(out))
