"""What a reader gives: the arrays of a file by name, each read when it is wanted."""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Entry(NamedTuple):
    """One array of a file.

    Attributes:
      shape: of the array.
      read: gives the array; what a damaged file makes it raise is a `UserError`.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


Entries = dict[str, Entry]
Reader = Callable[[pathlib.Path], Entries]


def held(arrays: Mapping[str, np.ndarray]) -> Entries:
    """Returns the entries of arrays that are in memory already."""
    return {name: Entry(x.shape, lambda x=x: x) for name, x in arrays.items()}
