"""Expected loss as bias and variance over models that were trained on other samples.

Each model of `[models, ...]` learnt from a sample of its own, such as a bootstrap. The
identities hold exactly for the means over these models, however few there are; with
few, the bias of `squared` holds the variance of their mean, `variance / models`.
"""

from typing import NamedTuple

import numpy as np


class Squared(NamedTuple):
    """`error = bias + variance`, means over the examples.

    Attributes:
      error: expected squared distance of a model's prediction from the target.
      bias: squared distance of the mean prediction from the target.
      variance: expected squared distance of a prediction from the mean prediction.
    """

    error: float
    bias: float
    variance: float


class ZeroOne(NamedTuple):
    """`error = bias + unbiased - biased`, means over the examples.

    Attributes:
      error: expected share of wrong answers.
      bias: share of the examples whose main prediction, the most frequent one, is
        wrong.
      variance: expected share of answers that are not the main prediction.
      unbiased: the part of it that makes errors, where the main prediction is right.
      biased: the part of it that makes right answers, where the main one is wrong.
    """

    error: float
    bias: float
    variance: float
    unbiased: float
    biased: float


def squared(predictions: np.ndarray, target: np.ndarray) -> Squared:
    """Returns the decomposition of the squared loss (Geman et al. 1992).

    Args:
      predictions: `[models, n, ...]`, numbers of a regression, or shares of classes.
      target: `[n, ...]`, without noise; labels as ones and zeros. Noise of variance s^2
        in the labels that a model is judged by adds s^2 to the error.
    """
    predictions = np.asarray(predictions, np.float64)
    mean = predictions.mean(0)

    def total(difference: np.ndarray) -> float:
        """Returns the sum over what an example has, in the mean over all else."""
        models = difference.reshape(-1, *mean.shape)
        return float(np.square(models).sum() / (len(models) * len(mean)))

    return Squared(
        error=total(predictions - target),
        bias=total(mean - target),
        variance=total(predictions - mean),
    )


def zero_one(guesses: np.ndarray, labels: np.ndarray) -> ZeroOne:
    """Returns the decomposition of the 0-1 loss (Domingos 2000, section 3).

    Of several classes: where the main prediction is wrong, only those other answers
    reduce the error that are right (his theorem 3).

    Args:
      guesses: int `[models, n]`, classes.
      labels: int `[n]`.
    """
    guesses = np.asarray(guesses)
    classes = 1 + max(int(guesses.max()), int(labels.max()))
    counts = np.stack([np.bincount(column, minlength=classes) for column in guesses.T])
    main = counts.argmax(-1)  # of equally frequent ones the first class
    astray = (guesses != main).mean(0)
    right = (guesses == labels).mean(0)
    wrong = main != labels
    return ZeroOne(
        error=float(1 - right.mean()),
        bias=float(wrong.mean()),
        variance=float(astray.mean()),
        unbiased=float(np.where(wrong, 0, astray).mean()),
        biased=float(np.where(wrong, right, 0).mean()),
    )
