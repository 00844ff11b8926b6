"""The columns of a table: what each holds, and its values as numbers.

A stored row is float32 [C]: numbers as they are, NaN where one is missing; a category
as its place among those that were found in training, -1 where it is missing or was not
found there.
"""

import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lib import errors

# More distinct texts than this are no categories, but names, or numbers with a flaw.
MOST_CATEGORIES = 1000


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not _is_flag(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _code_name(value: Any) -> str:
    whole = float(value).is_integer()
    return str(int(value)) if whole else repr(float(value))


class Kind(NamedTuple):
    """What a column may hold.

    Attributes:
      holds: value -> whether it is of this kind; a missing one is not asked.
      what: in words, for messages.
      category: value -> the name of its category; None for numbers.
    """

    holds: Callable[[Any], bool]
    what: str
    category: Callable[[Any], str] | None


KINDS = {
    "number": Kind(_is_number, "a number", None),
    "text": Kind(lambda v: isinstance(v, str), "a text", str),
    "flag": Kind(_is_flag, "true or false", lambda v: str(bool(v)).lower()),
    "code": Kind(_is_number, "a number", _code_name),  # that names a category
}


class Column(NamedTuple):
    """One column.

    Attributes:
      name: of the field.
      kind: a key of `KINDS`.
      categories: their names, in order; () for numbers.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()


class Coded(NamedTuple):
    """A column's values as they are stored.

    Attributes:
      values: float32 [N].
      missing: how many had no value.
      unseen: how many are of a category that training has not.
    """

    values: np.ndarray
    missing: int
    unseen: int


def is_missing(value: Any) -> bool:
    """Returns whether a value is none: None, NaN or the empty text."""
    if isinstance(value, np.ndarray):
        return False
    return value is None or value == "" or value != value


def kind_of(name: str, values: np.ndarray, coded: bool) -> str:
    """Returns the kind of a column by its values, a key of `KINDS`.

    Args:
      name: of the column, for messages.
      values: [N], those of the training split.
      coded: whether numbers name categories, also where texts are numbers.

    Raises:
      UserError: the values are of no kind, or of several, or most texts are numbers.
    """
    if values.ndim != 1:
        raise errors.UserError(
            f"column {name!r} holds arrays of shape {values.shape[1:]}, expected a "
            "value a row; leave it out of data.table.columns"
        )
    if values.dtype.kind in "iuf":
        return "code" if coded else "number"
    if values.dtype.kind == "b":
        return "flag"
    there = [v for v in values.tolist() if not is_missing(v)]
    for kind in ("flag", "code" if coded else "number", "text"):
        if all(map(KINDS[kind].holds, there)):
            if kind == "text" and not coded:
                _must_be_words(name, there)
            return kind
    kinds = ", ".join(sorted({type(v).__name__ for v in there}))
    raise errors.UserError(
        f"column {name!r} holds {kinds}, expected all numbers, all texts, or all true "
        "and false; leave it out of data.table.columns"
    )


def _must_be_words(name: str, texts: Sequence[str]) -> None:
    """Raises a `UserError` for numbers with a flaw: one "?" makes a column text."""
    others = [text for text in texts if not _reads_as_number(text)]
    if len(others) < len(texts) / 2:
        odd = f" all but {len(others)}, such as {others[0]!r}" if others else ""
        raise errors.UserError(
            f"column {name!r} holds texts that are numbers,{odd or ' all of them'}; "
            "write them as numbers, with nothing for what is missing, or name the "
            "column in data.table.categorical"
        )


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def learn(name: str, kind: str, values: np.ndarray) -> Column:
    """Returns a column with the categories that its training values have.

    Raises:
      UserError: there are more than `MOST_CATEGORIES`.
    """
    category = KINDS[kind].category
    if category is None:
        return Column(name, kind)
    there = {v for v in values.tolist() if not is_missing(v)}
    order = sorted(there) if kind != "text" else sorted(there, key=str)
    names = tuple(dict.fromkeys(map(category, order)))
    if len(names) > MOST_CATEGORIES:
        raise errors.UserError(
            f"column {name!r} has {len(names):,} distinct values in training, such as "
            f"{names[0]!r}: too many for categories (at most {MOST_CATEGORIES:,}); "
            "leave it out of data.table.columns, or mend what is no number in it"
        )
    return Column(name, kind, names)


def store(column: Column, values: Iterable[Any], where: str) -> Coded:
    """Returns the values of a column as they are stored.

    Args:
      column: that they are of.
      values: [N], raw: numbers, texts, booleans, and what is missing.
      where: of which rows, for messages: "split 'test' of data set 'x'".

    Raises:
      UserError: a value is of another kind, or is infinite, or too large for float32.
    """
    kind = KINDS[column.kind]
    if kind.category is None:
        values = _numbers(column, values, where)
        return Coded(values, int(np.isnan(values).sum()), 0)
    codes = {name: i for i, name in enumerate(column.categories)}
    coded, missing, unseen = [], 0, 0
    for row, value in enumerate(_plain(values)):
        if is_missing(value):
            missing += 1
            coded.append(-1)
            continue
        _must_hold(column, value, row, where)
        code = codes.get(kind.category(value), -1)
        unseen += code < 0
        coded.append(code)
    return Coded(np.array(coded, np.float32), missing, unseen)


def _numbers(column: Column, values: Iterable[Any], where: str) -> np.ndarray:
    found = values if isinstance(values, np.ndarray) else None
    if found is None or found.dtype.kind not in "iuf":
        plain = _plain(values)
        for row, value in enumerate(plain):
            if not is_missing(value):
                _must_hold(column, value, row, where)
        found = np.array([np.nan if is_missing(v) else v for v in plain], np.float64)
    with np.errstate(over="ignore"):  # what overflows is told below
        stored = found.astype(np.float32)
    for row in np.flatnonzero(np.isinf(stored)):
        raise errors.UserError(
            f"column {column.name!r}: row {row} of {where} is {found[row]}, expected a "
            "finite number that float32 can hold"
        )
    return stored


def _plain(values: Iterable[Any]) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _must_hold(column: Column, value: Any, row: int, where: str) -> None:
    kind = KINDS[column.kind]
    if not kind.holds(value):
        raise errors.UserError(
            f"column {column.name!r}: row {row} of {where} is {value!r}, expected "
            f"{kind.what}"
        )
