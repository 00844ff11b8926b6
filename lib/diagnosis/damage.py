"""What compression did to the answers that a mean accuracy does not show.

Two classifiers of equal accuracy may err on different examples (Hooker et al. 2019,
arXiv 1911.05248), and be more or less sure of what they say (Guo et al. 2017, arXiv
1706.04599).
"""

from typing import NamedTuple

import numpy as np

from lib.diagnosis import intervals, paired


class Class(NamedTuple):
    """One class before and after.

    Attributes:
      label: the class.
      count: its examples.
      before: share of them that the dense model has right; 0 where there are none.
      after: share that the compressed one has.
      lost: how many went from right to wrong.
      won: how many went from wrong to right.
      p: of McNemar's test between the two, on these examples alone. With many classes
        some p are small by chance.
    """

    label: int
    count: int
    before: float
    after: float
    lost: int
    won: int
    p: float


class Damage(NamedTuple):
    """A compressed classifier beside its dense one, on the same examples.

    Attributes:
      before: accuracy of the dense model.
      after: accuracy of the compressed one.
      difference: after - before, with its bootstrap interval.
      lost: how many went from right to wrong.
      won: how many went from wrong to right.
      moved: how many went from one wrong class to another.
      p: of McNemar's exact test.
      calibration_before: expected calibration error of the dense model.
      calibration_after: of the compressed one.
      classes: one entry a class.
      worst: indices of examples that got worse, most of their own class's share lost
        first; only those that lost some.
    """

    before: float
    after: float
    difference: intervals.Interval
    lost: int
    won: int
    moved: int
    p: float
    calibration_before: float
    calibration_after: float
    classes: list[Class]
    worst: np.ndarray


def compare(
    dense: np.ndarray,
    compressed: np.ndarray,
    labels: np.ndarray,
    *,
    bins: int,
    confidence: float,
    samples: int,
    seed: int,
) -> Damage:
    """Returns what the compressed model's answers lost and won.

    Args:
      dense: logits `[n, classes]`.
      compressed: logits of the same examples, in the same order.
      labels: int `[n]`.
      bins: of the calibration error.
      confidence: of the interval of the difference, in (0, 1).
      samples: bootstraps of that interval.
      seed: of their draws.
    """
    first, second = shares(dense), shares(compressed)
    guess, now = first.argmax(-1), second.argmax(-1)
    right, still = guess == labels, now == labels
    whole = paired.mcnemar(right, still)
    own = np.arange(len(labels)), labels
    loss = first[own] - second[own]
    order = np.argsort(-loss, kind="stable")
    return Damage(
        before=float(right.mean()),
        after=float(still.mean()),
        difference=intervals.bootstrap(
            still.astype(float) - right,
            confidence=confidence,
            samples=samples,
            seed=seed,
        ),
        lost=whole.first,
        won=whole.second,
        moved=int((~right & ~still & (guess != now)).sum()),
        p=whole.p,
        calibration_before=calibration_error(first, labels, bins),
        calibration_after=calibration_error(second, labels, bins),
        classes=[
            _of_class(c, labels == c, right, still) for c in range(dense.shape[1])
        ],
        worst=order[loss[order] > 0],
    )


def _of_class(
    label: int, members: np.ndarray, right: np.ndarray, still: np.ndarray
) -> Class:
    count = int(members.sum())
    found = paired.mcnemar(right[members], still[members])
    before, after = (float(x[members].mean()) if count else 0.0 for x in (right, still))
    return Class(label, count, before, after, found.first, found.second, found.p)


def shares(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def calibration_error(shares: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Returns the expected calibration error (Guo et al. 2017, eq. 3), in [0, 1].

    The mean over the examples of how far the accuracy of those that are as sure as it
    is from how sure they are; bins of equal width, `(i / bins, (i + 1) / bins]`.

    Args:
      shares: `[n, classes]`, each row sums to 1.
      labels: int `[n]`.
      bins: from 1.
    """
    sure = shares.max(-1)
    right = shares.argmax(-1) == labels
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=right - sure, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))
