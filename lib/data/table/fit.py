"""Fits to the training part of a table what makes inputs of it; scikit-learn inside.

What comes out are plain constants: scikit-learn is not needed where they are used.
"""

from typing import Any

import numpy as np

from lib import errors
from lib.data.table import columns as table_columns
from lib.data.table import selection
from lib.data.table.inputs import Feature, TableInputs, name_of

# What fills in for a missing number; "constant" is 0.
IMPUTATIONS = ("median", "mean", "most_frequent", "constant")


def fit(
    columns: tuple[table_columns.Column, ...],
    stored: np.ndarray,
    classes: np.ndarray,
    *,
    impute: str,
    standardise: bool,
    select: str,
    keep: float,
    threshold: float,
    inverse_strength: float,
    seed: int,
) -> tuple[TableInputs, tuple[dict[str, Any], ...]]:
    """Returns what makes inputs, and every feature with its score.

    Args:
      columns: of a row.
      stored: the training part, float32 [N, C].
      classes: int32 [N].
      impute: of `IMPUTATIONS`.
      standardise: features get a mean of 0 and a deviation of 1; those that never vary
        become 0.
      select: "" for all features, or of `selection.SELECTIONS`.
      keep: see `selection.kept`.
      threshold: see `selection.kept`.
      inverse_strength: of the penalty of "l1" and "rfe"; scikit-learn's C.
      seed: of "mutual_information", "l1" and "rfe".

    Returns:
      the inputs, and `{"name", "score", "kept"}` for each feature that there was.

    Raises:
      UserError: as `selection.kept`.
    """
    fill = _fill(columns, stored, impute)
    filled = np.where(np.isnan(stored), fill, stored.astype(np.float64))
    features = [
        Feature(i, code)
        for i, column in enumerate(columns)
        for code in (range(len(column.categories)) if column.categories else [None])
        if column.categories or column.kind == "number"
    ]
    if not features:
        raise errors.UserError("data.table: no column has a value in training")
    raw = np.stack(
        [
            filled[:, f.column]
            if f.code is None
            else (filled[:, f.column] == f.code).astype(np.float64)
            for f in features
        ],
        1,
    )
    mean, std = np.zeros(len(features)), np.ones(len(features))
    if standardise:
        mean, std = _scale(raw)
    scores, places = None, np.arange(len(features))
    if select:
        discrete = np.array([f.code is not None for f in features])
        found = selection.Candidates(raw, (raw - mean) / std, discrete, classes)
        score = selection.SELECTIONS[select]
        scores = score(found, seed=seed, inverse_strength=inverse_strength)
        places = selection.kept(scores, keep, threshold)
    told = tuple(
        {
            "name": name_of(columns, feature),
            "score": None if scores is None else float(scores[i]),
            "kept": bool(i in places),
        }
        for i, feature in enumerate(features)
    )
    inputs = TableInputs(
        columns,
        tuple(fill.tolist()),
        tuple(features[i] for i in places),
        tuple(mean[places].tolist()),
        tuple(std[places].tolist()),
    )
    return inputs, told


def check(
    *,
    impute: str,
    standardise: bool,
    select: str,
    keep: float,
    threshold: float,
    inverse_strength: float,
    seed: int,
) -> None:
    """Raises a `UserError` for settings that no table fits."""
    errors.lookup(dict.fromkeys(IMPUTATIONS), impute, "data.table.impute")
    if select:
        errors.lookup(selection.SELECTIONS, select, "data.table.select")
    if not isinstance(standardise, bool):
        raise errors.UserError(
            f"data.table.standardise is True or False, got {standardise!r}"
        )
    if not keep >= 0 or (keep > 1 and keep != round(keep)):
        raise errors.UserError(
            f"data.table.keep is a number of features, or a fraction, got {keep}"
        )
    if keep and not select:
        raise errors.UserError(
            f"data.table.keep is {keep:g} without a way to choose; set "
            f"data.table.select to one of {', '.join(selection.SELECTIONS)}"
        )
    if select == "rfe" and not keep:
        raise errors.UserError("data.table.select 'rfe' needs data.table.keep")
    if not threshold >= 0:
        raise errors.UserError(f"data.table.threshold is at least 0, got {threshold}")
    if not inverse_strength > 0:
        raise errors.UserError(
            f"data.table.inverse_strength is above 0, got {inverse_strength}"
        )
    if not 0 <= seed < 2**32:
        raise errors.UserError(f"data.table.seed is from 0 to 2**32 - 1, got {seed}")


def _fill(columns: Any, stored: np.ndarray, impute: str) -> np.ndarray:
    """Returns what a missing number of each column becomes, float64 [C]."""
    from sklearn.impute import SimpleImputer

    fill = np.zeros(len(columns))
    places = [i for i, column in enumerate(columns) if column.kind == "number"]
    if places:
        # A column without any value is 0 throughout.
        imputer = SimpleImputer(
            strategy=impute, fill_value=0.0, keep_empty_features=True
        )
        fill[places] = imputer.fit(stored[:, places].astype(np.float64)).statistics_
    return fill


def _scale(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and (population) deviation of each feature; 1 for no deviation."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(raw)
    return scaler.mean_, scaler.scale_
