"""Cross-layer equalisation: ranges of channels balanced between neighbouring layers.

Nagel et al. 2019, arXiv 1906.04721, section 4.1. With one range for a whole tensor the
channel with the largest weights takes the steps from all others; scaling a channel up
in one layer and down in the next changes neither the function nor, at the optimum
`s_i = sqrt(r1_i r2_i) / r2_i` (eq. 11), leaves one of the two ranges worse than needed.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from lib import tree
from lib.program.preserving.absorb import place
from lib.program.preserving.channels import NONE, Labels
from lib.program.preserving.links import Link, links
from lib.program.preserving.preserve import Change, check

_ROUNDS = 200  # the most; a chain of layers settles geometrically
_SETTLED = 1e-4  # change of a factor, as a share of it
_NOTHING = 1e-9  # a channel with a smaller share of the largest range has none


def ranges(leaf: Any, labels: Labels, count: int) -> np.ndarray:
    """Returns `[count]`: the largest magnitude in each channel of a leaf."""
    magnitudes = np.abs(np.asarray(jnp.asarray(leaf, jnp.float32), float))
    found = np.zeros(count)
    here = labels != NONE
    np.maximum.at(found, labels[here], magnitudes[here])
    return found


def equalize(
    f: Callable[..., Any], *, tolerance: float = 1e-3
) -> Callable[..., tuple[Any, list[Change]]]:
    """Returns a function of f's arguments that returns `(weights, changes)`.

    Pairs of a contraction and those that read its output through positively
    homogeneous functions (`links`), rescaled in turn until nothing moves. Biases are
    scaled along; of a batch norm in between so are its statistics, scale and bias, but
    fold it first if the folded kernel is what will be quantized. Where several
    contractions read the value, the largest of their ranges counts.

    One `Change` for each pair, then one for each contraction that ends none.

    Args:
      f: pure, `f(weights, *args)`, in evaluation mode; `weights` a nested dict.
      tolerance: the greatest change of f's result, as a share of its greatest element.

    Raises:
      RunError: when the result is called: the program does not compute what it did.
    """

    def equalized(weights, *args):
        found, missed = links(f)(weights, *args)
        pairs = [link for link in found if link.kind == "contraction"]
        ends = {reader.site for link in pairs for reader in link.readers}
        changes = [Change(link.source, link.paths, "") for link in pairs]
        changes += [Change(m.name, (), m.why) for m in missed]
        changes += [
            Change(reader.site, (), "its input comes from a norm's scale")
            for link in found
            for reader in link.readers
            if reader.site not in ends
        ]
        by = _balance(pairs, weights)
        new = weights
        for link, factors in zip(pairs, by, strict=True):
            new = link.scaled(new, factors)
        alone = (
            (link.path, link.scaled(weights, factors))
            for link, factors in zip(pairs, by, strict=True)
        )
        if pairs:
            check("equalize", f, weights, new, args, alone, tolerance)
        return new, changes

    return equalized


def _balance(pairs: list[Link], weights: Any) -> list[np.ndarray]:
    """Returns the factors of each link's channels, with all links in balance."""
    paths = {path for link in pairs for path in (link.path, *link.shrink)}
    now = {
        path: np.asarray(jnp.asarray(tree.get(weights, path), jnp.float32), float)
        for path in paths
    }
    total = [np.ones(link.channels) for link in pairs]
    for _ in range(_ROUNDS):
        moved = 0.0
        for i, link in enumerate(pairs):
            own = {link.path: link.grow[link.path]}
            before = ranges(now[link.path], own[link.path], link.channels)
            after = np.max(
                [ranges(now[p], x, link.channels) for p, x in link.shrink.items()], 0
            )
            some = (before > _NOTHING * before.max()) & (after > _NOTHING * after.max())
            by = np.sqrt(np.where(some, after, 1) / np.where(some, before, 1))
            for path, labels in own.items():
                now[path] = now[path] * place(labels, by, 1)
            for path, labels in link.shrink.items():
                now[path] = now[path] * place(labels, 1 / by, 1)
            total[i] = total[i] * by
            moved = max(moved, float(np.max(np.abs(np.log(by)))))
        if moved < _SETTLED:
            break
    return total
