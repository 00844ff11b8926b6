"""Leaves that are one weight: cut alike, they stay one."""

from typing import Any

import numpy as np

from lib import tree


def twins(weights: Any, root: str = "params") -> list[tuple[str, str]]:
    """Returns pairs of paths of kernels that are equal to the last bit.

    What was tied comes out of a file as leaves of the same values. Vectors are left
    out: two biases may well be all zeros; so are leaves that are.

    Args:
      weights: a nested dict of arrays.
      root: the collection that is looked through.
    """
    seen: dict[tuple, str] = {}
    pairs = []
    for path, leaf in tree.flatten(weights[root], root).items():
        if np.ndim(leaf) < 2:
            continue
        array = np.asarray(leaf)
        if not array.any():  # not trained yet
            continue
        key = (array.shape, str(array.dtype), array.tobytes())
        if key in seen:
            pairs.append((seen[key], path))
        else:
            seen[key] = path
    return pairs
