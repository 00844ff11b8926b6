"""Weights on grids for the tests of files that hold integers."""

import numpy as np

from lib import representations, tree

EIGHT = {"bits": 8, "symmetric": False}


def quantized(w, *, bits=8):
    """Returns a weight on a symmetric grid, one scale a channel."""
    w = np.asarray(w)
    most = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(tuple(range(w.ndim - 1)), keepdims=True) / np.float32(most)
    return representations.Quantized(
        np.rint(w / scale).astype(np.int8), scale, None, bits
    )


def frozen_of(params, *, bits=8):
    """Returns the params with each kernel quantized."""
    flat = tree.flatten(params)
    return tree.unflatten(
        {
            path: quantized(w, bits=bits) if "kernel" in path else w
            for path, w in flat.items()
        }
    )
