"""The tables that come with scikit-learn: one split, `train`, and no download."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lib import errors
from lib.data.sources.columns import Columns
from lib.data.sources.rows import Opened

LABEL = "label"


def _bundled(name: str) -> Callable[[], Any]:
    def read() -> Any:
        from sklearn import datasets  # two seconds, for those who need it

        return getattr(datasets, f"load_{name}")()

    return read


# Name after `sklearn/` -> its reader.
SETS: dict[str, Callable[[], Any]] = {
    name: _bundled(name) for name in ("iris", "wine", "breast_cancer", "digits")
}


def find(name: str) -> Opened:
    """Returns a bundled set: columns by scikit-learn's names, and `label`.

    Raises:
      UserError: it is none of `SETS`.
    """
    read = errors.lookup(
        {f"sklearn/{n}": load for n, load in SETS.items()}, name, "data set"
    )()
    values = np.asarray(read.data, np.float64)
    columns = {str(n): values[:, i] for i, n in enumerate(read.feature_names)}
    columns[LABEL] = np.asarray(read.target, np.int64)
    classes = tuple(str(n) for n in read.target_names)
    rows = Columns(name, "train", columns)
    return Opened(name, {"train": rows}, tuple(columns), {LABEL: classes}, ())
