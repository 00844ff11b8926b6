"""Mistakes of a user, told in one line: what was wrong and what is valid."""

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class UserError(ValueError):
    """A mistake in a config, flag, path, data set, weights or artifact.

    The message is one line that names the thing and what was expected. `run.py`
    prints it without a traceback and exits with code 2.
    """


class RunError(RuntimeError):
    """A run that cannot go on, by no mistake of its config; one line that says why.

    `run.py` prints it without a traceback and exits with code 1.
    """


def nearest(name: str, valid: Collection[str], count: int = 3) -> list[str]:
    """Returns up to `count` names of `valid`, the most similar to `name` first."""
    return difflib.get_close_matches(name, list(valid), n=count, cutoff=0.4)


def hint(name: str, valid: Collection[str]) -> str:
    """Returns "did you mean 'x'? valid: ..." for an unknown `name`."""
    close = nearest(name, valid, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}valid: {', '.join(sorted(valid)) or 'none'}"


def lookup(table: Mapping[str, Value], name: str, kind: str) -> Value:
    """Returns `table[name]`, or raises a `UserError` that names the nearest keys.

    Args:
      table: the visible dict of what there is.
      name: what a config asked for.
      kind: what the table holds, for the message ("technique", "model").
    """
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}; {hint(str(name), table)}")
    return table[name]
