"""Classes: their names, and the integer that stands for each."""

import numbers
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from lib import errors
from lib.data.sources.rows import Opened


class Labels(NamedTuple):
    """The classes of a data set.

    Attributes:
      names: of the classes, in order; label i is `names[i]`.
      code: (split, values of the field) -> int32 [N]; a `UserError` names a value that
        is no class.
    """

    names: tuple[str, ...]
    code: Callable[[str, Iterable[Any]], np.ndarray]


def of(opened: Opened, field: str, trained_on: Iterable[Any]) -> Labels:
    """Returns the classes of a field.

    Args:
      opened: the source; where it knows the field's classes, values are integers.
      field: that holds the class.
      trained_on: its values in the training split, whose distinct ones are the classes
        where the source does not know: numbers in order of size, texts of the alphabet.

    Raises:
      UserError: there are fewer than two classes, or a value is missing, or names no
        class: a quantity, a list.
    """
    known = opened.classes.get(field)
    if known is not None:
        return Labels(
            known, lambda split, v: _in_range(opened.name, field, split, v, known)
        )
    try:
        found = set(trained_on)
    except TypeError as e:  # lists, arrays
        raise _no_class(opened.name, field, str(e)) from e
    if None in found or any(v != v for v in found):
        raise errors.UserError(
            f"data set {opened.name!r}: {field!r} is missing in some rows of the "
            "training split"
        )
    for value in found:
        if isinstance(value, numbers.Real) and not float(value).is_integer():
            raise _no_class(opened.name, field, f"such as {value!r}")
    if len(found) < 2:
        raise errors.UserError(
            f"data set {opened.name!r}: {field!r} has {len(found)} class in the "
            "training split; at least two are needed"
        )
    try:
        order = sorted(found)
    except TypeError:  # of several types
        order = sorted(found, key=str)
    places = {value: i for i, value in enumerate(order)}

    def code(split: str, values: Iterable[Any]) -> np.ndarray:
        coded = []
        for row, value in enumerate(values):
            if not isinstance(value, Hashable) or value not in places:
                raise errors.UserError(
                    f"example {row} of split {split!r} of data set {opened.name!r} has "
                    f"{field} {value!r}, a class that the training split has not; "
                    f"{errors.hint(str(value), [str(v) for v in order])}"
                )
            coded.append(places[value])
        return np.array(coded, np.int32)

    return Labels(tuple(str(v) for v in order), code)


def _no_class(name: str, field: str, why: str) -> errors.UserError:
    return errors.UserError(
        f"data set {name!r}: {field!r} holds no classes ({why}); expected texts, whole "
        "numbers, or true and false"
    )


def _in_range(
    name: str, field: str, split: str, values: Iterable[Any], known: tuple[str, ...]
) -> np.ndarray:
    coded = []
    for row, value in enumerate(values):
        whole = isinstance(value, numbers.Integral)
        if not (whole and 0 <= value < len(known)):
            raise errors.UserError(
                f"example {row} of split {split!r} of data set {name!r} has {field} "
                f"{value}, expected 0 to {len(known) - 1}"
            )
        coded.append(int(value))
    return np.array(coded, np.int32)
