"""Bias correction: what rounding shifts on average is given back to the biases.

Nagel et al. 2019, arXiv 1906.04721, section 4.2: rounded weights make a contraction's
output err by other than 0 on average. With calibration data the shift is measured and
taken off: layer after layer in program order, each with those before it corrected
(appendix D, empirical quantization bias correction), not all at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.interpreter import execute
from lib.program.preserving import absorb, channels
from lib.program.preserving.absorb import Unfit
from lib.program.preserving.behind import tail
from lib.program.preserving.channels import Labels
from lib.program.preserving.graph import Graph, graph
from lib.program.preserving.norms import norm
from lib.program.preserving.preserve import Change
from lib.program.sites import read


class _Place(NamedTuple):
    """Where the mean output of a contraction can be shifted.

    Attributes:
      site: the contraction's name.
      axes: of its output, over which the channels vary.
      labels: over these axes.
      path: of the leaf that takes the shift.
      placed: labels of the leaf.
      factors: weights -> `[channels]`: the leaf's change for a shift of 1.
    """

    site: str
    axes: tuple[int, ...]
    labels: Labels
    path: str
    placed: Labels
    factors: Callable[[Any], np.ndarray]


def correct_bias(
    f: Callable[..., Any],
    weights: Any,
    rounded: Any,
    batches: Sequence[tuple[Any, ...]],
    *,
    example: tuple[Any, ...],
    pattern: str = ".",
) -> tuple[Any, list[Change]]:
    """Returns weights whose rounding shifts no contraction's mean output by channel.

    A leaf that is added behind the contraction takes the shift: its bias, or the bias
    of a batch norm (times the norm's multiplier); failing both, a norm's mean.

    Args:
      f: pure, `f(weights, *args)`, in evaluation mode.
      weights: a nested dict.
      rounded: the same with its weights rounded; biases may be rounded, too, but their
        change is not.
      batches: tuples of `args`; read once for each contraction, and once more.
      example: a small `args`, to follow the program with.
      pattern: regular expression over the names of the contractions.

    Returns:
      `weights` with other biases, and a `Change` for each contraction that the pattern
      takes and that has a weight.

    Raises:
      UserError: no batches, NaN or infinity in an output, a pattern that takes no
        contraction with a weight.
    """
    g = graph(f)(weights, *example)
    nodes = [n for n in g.nodes if n.site and g.weighed(n) is not None]
    if not nodes:
        raise errors.UserError(
            "correct_bias: the program has no contraction with a weight"
        )
    wanted = tree.match([pattern], [node.scope for node in nodes])
    places, changes = [], []
    for i, node in enumerate(g.nodes):
        if node.site is None or node.scope not in wanted or g.weighed(node) is None:
            continue
        try:
            places.append(_place(g, i))
        except Unfit as e:
            changes.append(Change(node.scope, (), str(e)))
        else:
            changes.append(Change(node.scope, (places[-1].path,), ""))
    if not places:
        return weights, changes
    means = _means(f, places, batches)
    expected = means(weights)
    new = weights
    for place in places:
        shift = expected[place.site] - means(rounded)[place.site]
        by = shift * place.factors(weights)

        def shifted(_, w, place=place, by=by):
            return w + absorb.place(place.placed, by, 0)

        new = absorb.changed(new, [place.path], shifted)
        rounded = absorb.changed(rounded, [place.path], shifted)
    return new, changes


def _place(g: Graph, number: int) -> _Place:
    """Returns where the mean output of the contraction at a node can be shifted."""
    node = g.nodes[number]
    behind = tail(g, number)
    products, found = [], []
    for term in behind.terms:
        if term.kind in ("mul", "div"):
            products.append(norm(g, term.scope, term.kind, term.value, term.labels))
            continue
        try:
            path, sign, placed = absorb.summand(g, term.value, term.labels)
        except Unfit:
            continue
        sign = -sign if term.kind == "sub" else sign
        found.append((term.kind == "sub", path, sign, placed, tuple(products)))
    if not found:
        raise Unfit(f"no sum with a weight before {behind.end}")
    _, path, sign, placed, products = min(found, key=lambda one: one[0])
    _, labels = channels.outputs(node, g.weighed(node))
    axes = tuple(a for a in range(labels.ndim) if not channels.constant(labels, (a,)))
    others = tuple(a for a in range(labels.ndim) if a not in axes)

    def factors(weights):
        by = np.full(behind.count, float(sign))
        for product in products:
            by = by * product.multiplier(weights)
        return by

    return _Place(node.scope, axes, labels.max(others), path, placed, factors)


def _means(
    f: Callable[..., Any], places: Sequence[_Place], batches: Sequence[tuple]
) -> Callable[[Any], dict[str, np.ndarray]]:
    """Returns weights -> {site: mean output `[channels]` over the batches}."""
    at = {place.site: place for place in places}

    def step(site, lhs, rhs, bind, feed):
        del feed
        out, record = bind(lhs, rhs), None
        if site.name in at:
            axes = at[site.name].axes
            y = jnp.moveaxis(out.astype(jnp.float32), axes, range(len(axes)))
            record = jnp.mean(y, axis=tuple(range(len(axes), y.ndim)))
        return out, record

    observed = jax.jit(lambda w, *args: execute(read(f, (w, *args), {}), step, {})[1])

    def means(weights):
        total: dict[str, np.ndarray] = {}
        count = 0
        for batch in batches:
            count += 1
            for site, mean in observed(weights, *batch).items():
                total[site] = total.get(site, 0.0) + np.asarray(mean, float)
        if not count:
            raise errors.UserError("correct_bias: got no batches, expected one")
        found = {}
        for site, sums in total.items():
            if not np.isfinite(sums).all():
                raise errors.UserError(f"correct_bias: {site} gives NaN or infinity")
            labels = at[site].labels
            found[site] = np.zeros(int(labels.max()) + 1)
            found[site][labels] = sums / count
        return found

    return means
