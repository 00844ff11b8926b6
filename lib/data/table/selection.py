"""Which features of a table are worth keeping: scores, higher is better.

Each looks at features and classes of the training part alone; scikit-learn inside.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lib import errors


class Candidates(NamedTuple):
    """What is chosen from, on the training part.

    Attributes:
      raw: float64 [N, F], filled in and one-hot, not standardised.
      values: float64 [N, F], as a model would see them.
      discrete: bool [F], whether a feature is a category.
      labels: int32 [N].
    """

    raw: np.ndarray
    values: np.ndarray
    discrete: np.ndarray
    labels: np.ndarray


def variance(found: Candidates, *, seed: int, inverse_strength: float) -> np.ndarray:
    """Returns the variance of each feature before it is standardised."""
    del seed, inverse_strength
    # scikit-learn's VarianceThreshold selects by it, and at 0 keeps no such scores.
    return found.raw.var(0)


def mutual_information(
    found: Candidates, *, seed: int, inverse_strength: float
) -> np.ndarray:
    """Returns what each feature tells of the class, in nats.

    Estimated from nearest neighbours, Kraskov et al. 2004 (cond-mat/0305641), Ross 2014
    (doi 10.1371/journal.pone.0087357); `seed` breaks ties among equal values.
    """
    from sklearn.feature_selection import mutual_info_classif

    del inverse_strength
    # It scales numbers itself, and warns of categories that are no whole numbers.
    return mutual_info_classif(
        found.raw,
        found.labels,
        discrete_features=found.discrete,
        random_state=seed,
    )


def l1(found: Candidates, *, seed: int, inverse_strength: float) -> np.ndarray:
    """Returns the sum of each feature's absolute weights over the classes.

    Of logistic regression with the lasso's penalty, Tibshirani 1996, which makes those
    of useless features exactly zero.
    """
    from sklearn.feature_selection import SelectFromModel

    model = _regression(inverse_strength, seed, l1_ratio=1.0, solver="saga")
    with _converged("l1"):
        fitted = SelectFromModel(model).fit(found.values, found.labels)
    return np.abs(np.atleast_2d(fitted.estimator_.coef_)).sum(0)


def rfe(found: Candidates, *, seed: int, inverse_strength: float) -> np.ndarray:
    """Returns the round in which each feature goes out: 1 for the first one.

    Recursive elimination, Guyon et al. 2002 (doi 10.1023/A:1012487302797): logistic
    regression is fitted, the feature of the smallest weights goes, and so on.
    """
    from sklearn.feature_selection import RFE

    model = _regression(inverse_strength, seed, l1_ratio=0.0, solver="lbfgs")
    with _converged("rfe"):
        # Down to one, so that every feature has a place of its own.
        ranks = RFE(model, n_features_to_select=1).fit(found.values, found.labels)
    return 1.0 + found.values.shape[1] - ranks.ranking_


SELECTIONS: dict[str, Callable[..., np.ndarray]] = {
    "variance": variance,
    "mutual_information": mutual_information,
    "l1": l1,
    "rfe": rfe,
}


def kept(scores: np.ndarray, keep: float, threshold: float) -> np.ndarray:
    """Returns the places of the features to keep, in order.

    Args:
      scores: [F].
      keep: how many, or, below 1, which fraction of them: those of the highest scores,
        of equal ones the first; 0 keeps those with a score above `threshold`.
      threshold: for `keep` 0.

    Raises:
      UserError: more are asked for than there are, or none would be kept.
    """
    if not keep:
        found = np.flatnonzero(scores > threshold)
        if not found.size:
            raise errors.UserError(
                f"data.table: no feature has a score above threshold {threshold:g}; "
                f"the highest is {scores.max():.4g}"
            )
        return found
    count = max(1, round(keep * len(scores))) if keep < 1 else round(keep)
    if count > len(scores):
        raise errors.UserError(
            f"data.table.keep is {count}, and there are {len(scores)} features"
        )
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _regression(c: float, seed: int, **settings: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=5000, random_state=seed, **settings)


class _converged:
    """Turns scikit-learn's warning of a fit that was not finished into one line."""

    def __init__(self, name: str):
        self._name = name
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        from sklearn.exceptions import ConvergenceWarning

        self._caught.__enter__()
        warnings.simplefilter("error", ConvergenceWarning)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        from sklearn.exceptions import ConvergenceWarning

        self._caught.__exit__(kind, value, trace)
        if kind is ConvergenceWarning:
            raise errors.UserError(
                f"data.table.select {self._name!r}: logistic regression did not "
                "converge; set standardise=True or lower inverse_strength"
            ) from value
