"""What became of each weight: sizes, bits and histograms, as plain data."""

import dataclasses
import math
from typing import Any

import numpy as np

from lib import formats, tree
from lib import representations as reps

BINS = 41  # odd, so that a symmetric grid has a bin around zero


def describe(frozen: Any, dense: Any | None = None) -> list[dict[str, Any]]:
    """Returns one dict for each leaf of a frozen params tree, in its order.

    Args:
      frozen: nested dict of representations (arrays count as `Dense`).
      dense: the params before compression; leaves of another shape are not compared.

    Returns:
      `[{"path", "shape", "params", "nonzero", "bits", "representation",
      "histogram": {"edges", "dense", "packed"}}]`. The histogram counts the weights
      that are not exactly zero; its "dense" is None where there is none to compare.
    """
    before = tree.flatten(dense) if dense is not None else {}
    thawed = tree.flatten(reps.thaw(frozen))
    described = []
    for path, leaf in tree.flatten(frozen).items():
        rep = reps.of(leaf)
        packed = np.asarray(thawed[path], np.float32)
        old = before.get(path)
        if old is not None and np.shape(old) != packed.shape:
            old = None
        described.append(
            {
                "path": path,
                "shape": list(packed.shape),
                "params": reps.params(rep),
                "nonzero": reps.nonzero(rep),
                "bits": bits(rep),
                "representation": spell(rep),
                "histogram": histogram(packed, old),
            }
        )
    return described


def histogram(packed: np.ndarray, dense: Any | None = None) -> dict[str, Any]:
    """Returns `{"edges", "dense", "packed"}`: counts of the weights that are not 0."""
    arrays = {"packed": np.asarray(packed, np.float64).ravel()}
    if dense is not None:
        arrays["dense"] = np.asarray(dense, np.float64).ravel()
    arrays = {name: a[(a != 0) & np.isfinite(a)] for name, a in arrays.items()}
    reach = max((float(np.abs(a).max()) for a in arrays.values() if a.size), default=1)
    edges = np.linspace(-reach, reach, BINS + 1)
    counts = {name: np.histogram(a, edges)[0].tolist() for name, a in arrays.items()}
    return {
        "edges": edges.tolist(),
        "dense": counts.get("dense"),
        "packed": counts["packed"],
    }


def bits(rep: reps.Representation) -> int:
    """Returns the bits of one stored weight; of the widest part in a product or sum.

    A weight that is tied to another stores none.
    """
    match rep:
        case reps.Dense(values):
            return 8 * np.asarray(values).dtype.itemsize
        case reps.Quantized(bits=width):
            return width
        case reps.Levels(format=name):
            return formats.bits(name)
        case reps.Codebook(centroids=centroids):
            count = reps.shape_of(reps.of(centroids))[0]
            return max(1, math.ceil(math.log2(count)))
        case reps.Sparse(values=below):
            return bits(below)
        case reps.LowRank() | reps.Tucker() | reps.CP() | reps.Sum():
            return max(bits(part) for part in reps.parts(rep))
        case reps.Tied():
            return 0
    raise TypeError(f"not a representation: {type(rep).__name__}")


def spell(rep: reps.Representation) -> str:
    """Returns how a weight is kept, outermost first: "Sparse of Quantized"."""
    name = type(rep).__name__
    match rep:
        case reps.Levels(format=kind):
            return f"{name} {kind}"
        case reps.Sparse(values=below):
            return f"{name} of {spell(below)}"
        case reps.LowRank() | reps.Tucker() | reps.CP() | reps.Sum():
            fields = [getattr(rep, f.name) for f in dataclasses.fields(rep)]
            return f"{name} of {' and '.join(map(spell, fields))}"
        case reps.Tied(path):
            return f"{name} to {path}"
    return name
