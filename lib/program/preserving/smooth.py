"""SmoothQuant: outliers of activations moved into the weights that they meet.

Xiao et al. 2022, arXiv 2211.10438. A channel of the input is divided by s_j and the
weight's rows are multiplied by it. The division costs nothing where what comes before
takes it over: the scale and bias of a norm, or a linear layer with nothing but
homogeneous functions in between (`links`); elsewhere the input is left as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.interpreter import execute
from lib.program.preserving.channels import NONE
from lib.program.preserving.equalize import ranges
from lib.program.preserving.links import Link, links
from lib.program.preserving.preserve import Change, check
from lib.program.sites import read


class Seen(NamedTuple):
    """Magnitudes of the values of a link, over calibration batches; `[channels]`."""

    largest: np.ndarray
    mean: np.ndarray


def smooth(
    f: Callable[..., Any],
    weights: Any,
    batches: Iterable[tuple[Any, ...]],
    *,
    example: tuple[Any, ...],
    alpha: float,
    pattern: str = ".",
    tolerance: float = 1e-3,
) -> tuple[Any, list[Change]]:
    """Returns weights with `s_j = max|X_j|**alpha / max|W_j|**(1 - alpha)` moved.

    Eq. 4 of arXiv 2211.10438. X is the input over all batches, W the weights of all
    contractions that read it. A channel that is 0 in either keeps s_j = 1.

    Args:
      f: pure, `f(weights, *args)`, in evaluation mode.
      weights: a nested dict.
      batches: tuples of `args`; read once.
      example: a small `args`, to follow the program with.
      alpha: how much of the difficulty moves, in [0, 1]; 0.5 in the paper.
      pattern: regular expression over the names of the contractions; one that it takes
        is smoothed with all that read the same value.
      tolerance: the greatest change of f's result, as a share of its greatest element.

    Returns:
      The weights, and a `Change` for each contraction that the pattern takes.

    Raises:
      UserError: alpha out of range, no batches, NaN or infinity in an input, a pattern
        that takes no contraction with a weight.
      RunError: the program does not compute what it did.
    """
    if not 0 <= alpha <= 1:
        raise errors.UserError(f"smooth: alpha is from 0 to 1, got {alpha}")
    chosen, changes = choose("smooth", f, weights, example, pattern)
    seen = magnitudes("smooth", f, weights, batches, chosen)
    by = []
    for link, values in zip(chosen, seen, strict=True):
        own = np.max(
            [
                ranges(tree.get(weights, path), labels, link.channels)
                for path, labels in link.shrink.items()
            ],
            axis=0,
        )
        some = (values.largest > 0) & (own > 0)
        x, w = np.where(some, values.largest, 1), np.where(some, own, 1)
        by.append(w ** (1 - alpha) / x**alpha)
    new = weights
    for link, factors in zip(chosen, by, strict=True):
        new = link.scaled(new, factors)
    alone = (
        (link.path, link.scaled(weights, factors))
        for link, factors in zip(chosen, by, strict=True)
    )
    if chosen:
        check("smooth", f, weights, new, example, alone, tolerance)
    return new, changes


def choose(
    what: str, f: Callable[..., Any], weights: Any, example: tuple, pattern: str
) -> tuple[list[Link], list[Change]]:
    """Returns the links to scale, at most one for each contraction, and all changes.

    The nearest source before a contraction is taken; past a batch norm that is folded,
    so that it stays folded.
    """
    found, missed = links(f)(weights, *example)
    folded = [link for link in found if _folded(link, weights)]
    before = {(link.readers[0].site, n.scope) for link in folded for n in link.norms}
    found = [
        link
        for link in found
        if link.kind == "contraction"
        or (link.readers[0].site, link.source) not in before
    ]
    sites = [r.site for link in found for r in link.readers] + [m.name for m in missed]
    if not sites:
        raise errors.UserError(
            f"{what}: the program has no contraction with a weight outside loops"
        )
    wanted = tree.match([pattern], list(dict.fromkeys(sites)))
    chosen: list[Link] = []
    taken: dict[str, Link] = {}
    for link in sorted(found, key=lambda link: -link.order):
        ends = [reader.site for reader in link.readers]
        if set(ends) & set(wanted) and not set(ends) & set(taken):
            chosen.append(link)
            taken.update(dict.fromkeys(ends, link))
    why = {m.name: m.why for m in missed}
    other = "what it reads is shared with a contraction that was scaled on its own"
    changes = [
        Change(site, taken[site].paths if site in taken else (), "")
        if site in taken
        else Change(site, (), why.get(site, other))
        for site in wanted
    ]
    return chosen[::-1], changes


def _folded(link: Link, weights: Any) -> bool:
    """Returns whether the norms on the way have a multiplier of 1."""
    ones = [np.allclose(n.multiplier(weights), 1, atol=1e-5) for n in link.norms]
    return bool(ones) and all(ones)


def magnitudes(
    what: str,
    f: Callable[..., Any],
    weights: Any,
    batches: Iterable[tuple[Any, ...]],
    chosen: Sequence[Link],
) -> list[Seen]:
    """Returns what the values of each link are like over some batches.

    Raises:
      UserError: there are no batches, or one gives NaN or infinity.
    """
    ends = {reader.site: reader for link in chosen for reader in link.readers}

    def step(site, lhs, rhs, bind, feed):
        del feed
        record = None
        if site.name in ends:
            reader = ends[site.name]
            x = jnp.abs((lhs if reader.side == "lhs" else rhs).astype(jnp.float32))
            x = jnp.moveaxis(x, reader.axes, range(len(reader.axes)))
            others = tuple(range(len(reader.axes), x.ndim))
            record = jnp.max(x, axis=others), jnp.mean(x, axis=others)
        return bind(lhs, rhs), record

    observed = jax.jit(lambda w, *args: execute(read(f, (w, *args), {}), step, {})[1])
    largest: dict[str, np.ndarray] = {}
    total: dict[str, np.ndarray] = {}
    count = 0
    for batch in batches:
        count += 1
        for site, record in observed(weights, *batch).items():
            most, mean = (np.asarray(x, float) for x in record)
            if not np.isfinite(most).all():
                raise errors.UserError(f"{what}: the input of {site} is not finite")
            largest[site] = np.maximum(largest.get(site, 0.0), most)
            total[site] = total.get(site, 0.0) + mean
    if not count:
        raise errors.UserError(f"{what}: got no batches, expected at least one")
    return [_by_channel(link, largest, total, count) for link in chosen]


def _by_channel(link: Link, largest: dict, total: dict, count: int) -> Seen:
    """Returns the magnitudes of a link from those at its readers' inputs."""
    most, sums, places = (np.zeros(link.channels) for _ in range(3))
    for reader in link.readers:
        here = reader.labels != NONE
        labels = reader.labels[here]
        np.maximum.at(most, labels, largest[reader.site][here])
        np.add.at(sums, labels, total[reader.site][here] / count)
        np.add.at(places, labels, 1.0)
    return Seen(most, sums / np.maximum(places, 1))
