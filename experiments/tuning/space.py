"""Which fields of a config are searched, over which values.

A row of `config.tune.search` is `(path, kind, ...)`. A path is that of any field, as
`"prune.sparsity"`, or a tuple of paths that are set together; `KINDS` has the kinds.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments import programs
from lib import errors, tree


class Row(NamedTuple):
    """One thing that is searched.

    Attributes:
      name: what the study calls it.
      paths: of the fields that it sets.
      kind: a key of `KINDS`.
      limits: (low, high), for whole numbers with a step or without; or of choices a
        dict of the study's name of each to the value of each path.
    """

    name: str
    paths: tuple[str, ...]
    kind: str
    limits: Any


# Kind -> (trial, name, limits) -> what the study says.
KINDS: dict[str, Callable[[Any, str, Any], Any]] = {
    "float": lambda trial, name, at: trial.suggest_float(name, *at),
    "log_float": lambda trial, name, at: trial.suggest_float(name, *at, log=True),
    "int": lambda trial, name, at: trial.suggest_int(
        name, at[0], at[1], step=at[2] if len(at) == 3 else 1
    ),
    "log_int": lambda trial, name, at: trial.suggest_int(name, *at, log=True),
    "choice": lambda trial, name, at: trial.suggest_categorical(name, list(at)),
}


def rows(search: Sequence[Any], base: Any) -> tuple[Row, ...]:
    """Returns what `config.tune.search` says of the fields of the config `base`.

    Raises:
      UserError: no field of that path, no such kind, limits that are none.
    """
    if not search:
        raise errors.UserError("tune.search is empty; name a field and its range")
    return tuple(_row(one, base) for one in search)


def _row(row: Any, base: Any) -> Row:
    if len(row) < 3:
        raise errors.UserError(
            f"a row of tune.search is (path, kind, low, high) or (path, 'choice', "
            f"values), got {row!r}"
        )
    path, kind, *limits = row
    paths = (path,) if isinstance(path, str) else tuple(path)
    name = " + ".join(paths)
    errors.lookup(KINDS, kind, f"kind of range of {name}")
    for one in paths:
        field(base, one)
    if kind == "choice":
        (values,) = limits
        if not values:
            raise errors.UserError(f"tune.search: {name} has no choices")
        return Row(name, paths, kind, _choices(name, paths, values))
    whole = kind in ("int", "log_int")
    lengths = (2, 3) if kind == "int" else (2,)
    numbers = [isinstance(x, int if whole else int | float) for x in limits]
    if len(limits) not in lengths or not all(numbers) or limits[0] > limits[1]:
        raise errors.UserError(
            f"tune.search: {kind} of {name} wants low <= high"
            f"{', whole numbers' if whole else ''}, got {tuple(limits)}"
        )
    if kind.startswith("log") and limits[0] <= 0:
        raise errors.UserError(f"tune.search: {kind} of {name} wants low > 0")
    for one in paths:
        if not whole and isinstance(field(base, one), int):
            raise errors.UserError(
                f"tune.search: {one} is a whole number; its kind is 'int' or 'log_int'"
            )
    return Row(name, paths, kind, tuple(limits))


def _choices(name: str, paths: Sequence[str], values: Sequence[Any]) -> dict[Any, Any]:
    """Returns the study's name of each choice -> the value of each path."""
    found = {}
    for value in values:
        # A study keeps plain values only.
        plain = isinstance(value, str | int | float) or value is None
        several = len(paths) > 1
        if several and (plain or len(value) != len(paths)):
            raise errors.UserError(
                f"tune.search: a choice of {name} has {len(paths)} values, got "
                f"{value!r}"
            )
        found[value if plain else repr(value)] = value if several else (value,)
    return found


def field(config: Any, path: str) -> Any:
    """Returns the value of a field; a `UserError` where there is none."""
    node = config
    for name in path.split("."):
        if not hasattr(node, "keys") or name not in node:
            known = [k.replace("/", ".") for k in tree.flatten(config.to_dict())]
            raise errors.UserError(
                f"tune: the base has no field {path!r}; nearest: "
                f"{', '.join(errors.nearest(path, known)) or 'none'}"
            )
        node = node[name]
    return node


def suggested(trial: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns {path: value} as the study suggests for a trial."""
    return settings(
        {row.name: KINDS[row.kind](trial, row.name, row.limits) for row in rows}, rows
    )


def settings(params: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Returns {path: value} for what the study keeps of a trial."""
    found = {}
    for row in rows:
        value = params[row.name]
        values = row.limits[value] if row.kind == "choice" else [value] * len(row.paths)
        found.update(zip(row.paths, values, strict=True))
    return found


def changed(base: Any, settings: Mapping[str, Any]) -> Any:
    """Returns a copy of the config `base` with these values."""
    return programs.changed(base, dict(settings))


def grid(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns every combination of values, as the study keeps them.

    Raises:
      UserError: a range that is not of whole numbers or choices.
    """
    for row in rows:
        if row.kind not in ("choice", "int"):
            raise errors.UserError(
                f"tune: a grid is of kinds 'choice' and 'int', and {row.name} is "
                f"{row.kind!r}"
            )
    columns = [
        list(row.limits)
        if row.kind == "choice"
        else list(range(row.limits[0], row.limits[1] + 1, *row.limits[2:]))
        for row in rows
    ]
    names = [row.name for row in rows]
    return [dict(zip(names, one, strict=True)) for one in itertools.product(*columns)]
