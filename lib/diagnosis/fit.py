"""Whether a model overfits or underfits, from its errors over data and model size.

The error on examples that were held out is the error on those it learnt from, plus the
gap between the two. What the larger of the two parts is says what to change.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERFITS = "overfits"
UNDERFITS = "underfits"
FITS = "about right"
STARVED = "too little data"


class Point(NamedTuple):
    """Errors of one size, means over seeds.

    Attributes:
      size: training examples, or parameters.
      train_error: share of wrong answers on what was learnt from, in [0, 1].
      error: on what was held out.
    """

    size: float
    train_error: float
    error: float

    @property
    def gap(self) -> float:
        """What the held-out error has beyond the training error."""
        return self.error - self.train_error


class Thresholds(NamedTuple):
    """Above which a number counts.

    Attributes:
      train_error: a training error above this is underfitting, if it is the larger
        part of the error. What noise in the labels explains is below it.
      gap: a gap above this is a gap, if it is above two standard errors of the
        held-out error as well.
      gain: share of the error that the last doubling of the data took away, from which
        on more data is what is missing.
      margin: a smaller model is as good if its error is not above ours by more; a
        larger one is better if its error is below ours by more.
    """

    train_error: float
    gap: float
    gain: float
    margin: float


class Verdict(NamedTuple):
    """What is wrong, if anything, and why that is said.

    Attributes:
      kind: one of this module's four.
      evidence: sentences with the numbers.
      smaller: place of the smallest model that is as good, among those by size; None
        if there is none.
      larger: place of the best model that is larger and better, or None.
    """

    kind: str
    evidence: tuple[str, ...]
    smaller: int | None
    larger: int | None


def judge(
    by_data: Sequence[Point],
    by_model: Sequence[Point],
    own: int,
    examples: int,
    limits: Thresholds,
) -> Verdict:
    """Returns the verdict on a model trained on all the data.

    In this order: it underfits if the training error is above its limit and the larger
    part of the error, or if a larger model is better while there is no gap; without a
    gap it is about right; with one it overfits if a smaller model is as good or more
    data brought too little, and else has too little data.

    Args:
      by_data: of the model, by the number of training examples, all of them last.
      by_model: of all the data, by the size of the model.
      own: the place of the model in `by_model`.
      examples: how many the held-out errors are measured on.
      limits: see `Thresholds`.
    """
    point = by_data[-1]
    error, gap = point.error, point.gap
    doubt = 2 * float(np.sqrt(max(error * (1 - error), 0) / examples))
    is_gap = gap > max(limits.gap, doubt)
    gain, half = _doubling(by_data)
    small = [i for i, p in enumerate(by_model) if p.size < by_model[own].size]
    large = [i for i, p in enumerate(by_model) if p.size > by_model[own].size]
    ours = by_model[own].error
    as_good = [i for i in small if by_model[i].error <= ours + limits.margin]
    better = [i for i in large if by_model[i].error < ours - limits.margin]
    smaller = min(as_good, key=lambda i: by_model[i].size, default=None)
    larger = min(better, key=lambda i: by_model[i].error, default=None)
    evidence = [
        f"training error {_percent(point.train_error)}, held out {_percent(error)}: a "
        f"gap of {100 * gap:.2f} points, {'above' if is_gap else 'not above'} both "
        f"{100 * limits.gap:.2f} points and two standard errors ({100 * doubt:.2f} "
        f"points on {examples:,} examples)"
    ]
    if half is not None:
        fell = f"took away {_percent(gain)} of it" if gain > 0 else "did not lower it"
        evidence.append(
            f"from {half.size:,.0f} to {point.size:,.0f} training examples the "
            f"held-out error went from {_percent(half.error)} to {_percent(error)}: a "
            f"doubling {fell}"
        )
    if smaller is not None:
        evidence.append(_beside(by_model, smaller, own, "as good"))
    if larger is not None:
        evidence.append(_beside(by_model, larger, own, "better"))
    if point.train_error > limits.train_error and point.train_error >= gap:
        evidence.append(
            f"the training error is above {_percent(limits.train_error)} and the "
            "larger part of the error: the model does not hold what it is shown"
        )
        if large and larger is None:
            evidence.append(
                "no larger model is better: train longer or penalise less; if that "
                "does not help either, the rest may be noise in the labels"
            )
        kind = UNDERFITS
    elif not is_gap:
        kind = FITS if larger is None else UNDERFITS
    elif gain >= limits.gain and smaller is None:
        kind = STARVED
    else:
        kind = OVERFITS
    return Verdict(kind, tuple(evidence), smaller, larger)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _beside(by_model: Sequence[Point], other: int, own: int, how: str) -> str:
    theirs, ours = by_model[other], by_model[own]
    return (
        f"a model of {theirs.size:,.0f} parameters is {how}: held-out error "
        f"{_percent(theirs.error)} against {_percent(ours.error)} of {ours.size:,.0f}"
    )


def _doubling(by_data: Sequence[Point]) -> tuple[float, Point | None]:
    """Returns the share of the error that a doubling took away, and since which point.

    The point is that nearest to half the data; from it on the error is taken to fall
    as a power of the number of examples (Hestness et al. 2017, arXiv 1712.00409).
    """
    last = by_data[-1]
    before = [p for p in by_data[:-1] if p.size < last.size and p.error > 0]
    if not before:
        return 0.0, None
    half = min(before, key=lambda p: abs(np.log(2 * p.size / last.size)))
    if last.error <= 0:
        return 1.0, half
    power = np.log(half.error / last.error) / np.log(last.size / half.size)
    return float(1 - 2**-power), half
