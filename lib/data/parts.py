"""From a source's splits to the three parts: some are official, some are drawn."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from lib import errors
from lib.data import examples, splits

Source = TypeVar("Source", examples.Arrays, examples.Records)


class Names(NamedTuple):
    """Which of a source's splits is what.

    Attributes:
      train: the official train split.
      validation: an official one; "" draws `validation_fraction` of the train split.
      test: an official one; "" draws `test_fraction` of the train split.
      validation_fraction: in (0, 1), of the whole train split.
      test_fraction: in (0, 1), of the whole train split.
    """

    train: str
    validation: str
    test: str
    validation_fraction: float
    test_fraction: float


def divide(
    name: str, names: Names, read: Callable[[str], Source]
) -> tuple[Source, Source, Source]:
    """Returns the sources of train, validation and test.

    What is drawn is drawn with a seed of its own (`splits.SEED`), so that it is the
    same in every run; with the classes in proportion, or, for a set that stays on disk,
    whose labels are not read beforehand, without.

    Args:
      name: of the data set, for messages.
      names: which split is what.
      read: name of a split -> its source.

    Raises:
      UserError: two parts are the same split, or a part would be empty.
    """
    official = [n for n in names[:3] if n]
    if len(set(official)) < len(official):
        raise errors.UserError(
            f"data set {name!r}: its train split cannot be its test or validation "
            f"split, nor one split both; got train {names.train!r}, validation "
            f"{names.validation!r}, test {names.test!r}"
        )
    kept = read(names.train)
    total = len(kept)
    parts = []
    for kind, split, fraction in (
        ("test", names.test, names.test_fraction),
        ("validation", names.validation, names.validation_fraction),
    ):
        if split:
            parts.append(read(split))
        else:
            count = splits.count(total, fraction, name, kind)
            kept, out = _held_out(kept, count, name)
            parts.append(out)
    test, validation = parts
    return kept, validation, test


def _held_out(source: Source, count: int, name: str) -> tuple[Source, Source]:
    if count >= len(source):
        raise errors.UserError(
            f"data set {name!r}: validation_fraction and test_fraction leave no "
            "training example"
        )
    if isinstance(source, examples.Arrays):
        kept, out = splits.stratified(source.fields["label"], count, splits.SEED)
    else:
        kept, out = splits.random(len(source), count, splits.SEED)
    return source.select(kept), source.select(out)
