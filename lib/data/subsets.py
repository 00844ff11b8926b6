"""Parts of the examples that may be learnt from: folds, bootstraps, growing sets.

All are index arrays into one pool, so a training run differs from another in data alone
and both are runs of one program.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib import errors
from lib.data import dataset, examples, splits


class Pool(NamedTuple):
    """Training and validation examples, in this order; never a test example.

    Attributes:
      fields: name -> array `[N, ...]`, as `examples.Arrays` has them.
      train: int32 `[n]`, where the training examples are.
      validation: int32 `[N - n]`, where the validation examples are.
    """

    fields: dict[str, np.ndarray]
    train: np.ndarray
    validation: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """int32 `[N]`, the class of each."""
        return self.fields["label"]


class Fold(NamedTuple):
    """What one run of a cross-validation learns from and is judged on.

    Attributes:
      repeat: from 0.
      fold: from 0.
      train: int32 indices, sorted.
      held_out: the rest of them.
    """

    repeat: int
    fold: int
    train: np.ndarray
    held_out: np.ndarray


def pool(data: dataset.Dataset, purpose: str) -> Pool:
    """Returns the examples that `purpose` may look at.

    Raises:
      UserError: they are not in memory, or are texts cut to several lengths.
    """
    parts = [splits.may_choose(s, purpose) for s in (data.train, data.validation)]
    for split in parts:
        if not isinstance(split.source, examples.Arrays):
            raise errors.UserError(
                f"{purpose}: expected data in memory, got data set {data.name!r} that "
                "stays on disk; raise data.resident_bytes"
            )
        if split.buckets is not None:
            raise errors.UserError(
                f"{purpose}: expected examples of one length, got data set "
                f"{data.name!r} in buckets; set data.text.buckets=()"
            )
    first, second = (split.source.fields for split in parts)
    fields = {k: np.concatenate([first[k], second[k]]) for k in first}
    place = np.arange(len(fields["label"]), dtype=np.int32)
    return Pool(fields, *np.split(place, [len(parts[0])]))


def noisy(pool: Pool, share: float, classes: int, seed: int) -> Pool:
    """Returns the pool with a share of its labels replaced by wrong ones.

    The same share of the training and of the validation examples.

    Args:
      pool: of a data set.
      share: in [0, 1]; 0 is the pool itself.
      classes: labels lie in [0, classes).
      seed: of which ones, and of what they become.

    Raises:
      UserError: it is no share.
    """
    if not 0 <= share <= 1:
        raise errors.UserError(f"a share of wrong labels is from 0 to 1, got {share}")
    rng, label = np.random.default_rng(seed), pool.label.copy()
    for part in (pool.train, pool.validation):
        count = round(share * len(part))
        chosen = rng.choice(part, count, replace=False)
        label[chosen] = (label[chosen] + rng.integers(1, classes, count)) % classes
    return pool._replace(fields={**pool.fields, "label": label})


def folds(
    labels: np.ndarray, *, count: int, repeats: int, stratified: bool, seed: int
) -> list[Fold]:
    """Returns the folds of a repeated k-fold cross-validation.

    The splits are those of scikit-learn's `RepeatedStratifiedKFold` or
    `RepeatedKFold`: in each repeat every example is held out once.

    Args:
      labels: int `[N]`.
      count: folds of a repeat, k, from 2.
      repeats: from 1.
      stratified: whether each fold has the classes in the same proportions.
      seed: of the shuffling.

    Raises:
      UserError: fewer than 2 folds, no repeat, or more folds than there are examples,
        of the smallest class if stratified.
    """
    from sklearn import model_selection  # takes two seconds

    if count < 2 or repeats < 1:
        raise errors.UserError(
            "cross-validation: expected at least 2 folds and 1 repeat, got "
            f"{count} and {repeats}"
        )
    most = np.unique(labels, return_counts=True)[1].min() if stratified else len(labels)
    if count > most:
        of = "of the smallest class" if stratified else "there are"
        raise errors.UserError(
            f"cross-validation: {count} folds of {most} examples {of}; lower folds"
        )
    kind = (
        model_selection.RepeatedStratifiedKFold
        if stratified
        else model_selection.RepeatedKFold
    )
    cut = kind(n_splits=count, n_repeats=repeats, random_state=seed)
    return [
        Fold(*divmod(i, count), train.astype(np.int32), held_out.astype(np.int32))
        for i, (train, held_out) in enumerate(cut.split(labels, labels))
    ]


def bootstraps(members: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Returns `count` samples of `members` with replacement, each as large as it."""
    rng = np.random.default_rng(seed)
    return [members[rng.integers(0, len(members), len(members))] for _ in range(count)]


def growing(
    members: np.ndarray, labels: np.ndarray, sizes: Sequence[int], seed: int
) -> list[np.ndarray]:
    """Returns a subset of each size; each holds all that are smaller.

    The classes of every subset are in the proportions of `members`, as near as whole
    examples come: they take turns.

    Args:
      members: indices `[n]`.
      labels: int, `labels[i]` is the class of index i.
      sizes: each from 1 to n.
      seed: of the order inside each class.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(members)
    own = labels[shuffled]
    turn = np.empty(len(shuffled))
    for label in np.unique(own):
        at = np.flatnonzero(own == label)
        turn[at] = (np.arange(len(at)) + rng.random()) / len(at)
    order = shuffled[np.argsort(turn, kind="stable")]
    return [np.sort(order[:size]) for size in sizes]


def rows(
    members: np.ndarray, *, steps: int, batch_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns `{"index": int32 [steps, batch_size]}` of a run over `members` alone.

    The stream that `pipeline.OnDevice` gives of a split of just these examples: every
    epoch is another permutation, and none is dropped whatever their number.

    Args:
      members: indices `[n]` into the pool; one may be there more than once.
      steps: of the run.
      batch_size: examples a step.
      seed: of the order.
    """
    size, total = len(members), steps * batch_size
    orders = [
        np.random.default_rng([seed, epoch]).permutation(size)
        for epoch in range(-(-total // size))
    ]
    index = members[np.concatenate(orders)[:total]].astype(np.int32)
    return {"index": index.reshape(steps, batch_size)}
