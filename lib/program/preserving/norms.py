"""Products with weights on the way of data, as a batch norm's, found in the program.

In evaluation a batch norm multiplies by `scale * rsqrt(variance + epsilon)`. When the
data before it are scaled by s, its variance goes with s**2 and its scale makes up for
the rest, so that it does the same with running statistics and with those of a batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lib.program.preserving import absorb, channels
from lib.program.preserving.absorb import Unfit
from lib.program.preserving.channels import Labels
from lib.program.preserving.graph import Graph, evaluate


class Norm(NamedTuple):
    """A product of data, channel by channel, with what depends on weights alone.

    Attributes:
      scope: where it stands.
      multiplier: weights -> `[channels]`, what the data are multiplied by.
      scale: the leaf that the multiplier is proportional to, as {path: labels}; or {}.
      variance: the leaf under its square root, as {path: labels}; or {}.
      epsilon: what is added to the variance.
    """

    scope: str
    multiplier: Callable[[Any], np.ndarray]
    scale: dict[str, Labels]
    variance: dict[str, Labels]
    epsilon: float

    def moved(self, weights: Any, by: np.ndarray, target: np.ndarray) -> Any:
        """Returns weights for data multiplied by `by` and a multiplier of `target`.

        Args:
          weights: a nested dict.
          by: `[channels]`: what the data before it were multiplied by.
          target: `[channels]`: the multiplier in evaluation from now on.

        Raises:
          Unfit: it has neither a scale nor a variance to set.
        """
        if self.scale:
            (path,) = self.scale
            weights = absorb.multiplied(weights, self.variance, np.square(by))
            ones = absorb.changed(weights, [path], lambda _, w: np.ones_like(w))
            new = target / self.multiplier(ones)
            return absorb.changed(
                weights,
                [path],
                lambda _, w: np.where(
                    self.scale[path] == channels.NONE,
                    w,
                    absorb.place(self.scale[path], new, 1),
                ),
            )
        if not self.variance:
            raise Unfit(f"{self.scope}: no leaf to scale")
        if (target <= 0).any():
            raise Unfit(f"{self.scope}: without a scale it is never 0 or below")
        factor = np.square(self.multiplier(weights) / target)

        def solved(path, w):
            placed = absorb.place(self.variance[path], factor, 1)
            return placed * (w + self.epsilon) - self.epsilon

        return absorb.changed(weights, self.variance, solved)


def norm(g: Graph, scope: str, kind: str, value: int, labels: Labels) -> Norm:
    """Returns the product with a value, given what the data are multiplied with.

    Args:
      g: the program.
      scope: for messages.
      kind: "mul" or "div".
      value: the operand that depends on weights alone.
      labels: of it.
    """
    scale: dict[str, Labels] = {}
    if kind == "mul":
        try:
            scale = absorb.factors(g, value, labels)
        except Unfit:
            pass
        scale = scale if len(scale) == 1 else {}
    variance, epsilon = _variance(g, value, labels, "sqrt" if kind == "div" else "")
    return Norm(
        scope,
        functools.partial(_multiplier, g, value, labels, kind),
        scale,
        variance,
        epsilon,
    )


def _multiplier(g: Graph, value: int, labels: Labels, kind: str, weights: Any):
    found = by_channel(evaluate(g, weights, [value])[value], labels)
    return 1 / found if kind == "div" else found


def by_channel(values: np.ndarray, labels: Labels) -> np.ndarray:
    """Returns `[channels]`: the value of each label, which all its elements share.

    Raises:
      Unfit: they do not.
    """
    found = np.ones(int(labels.max()) + 1)
    here = labels != channels.NONE
    found[labels[here]] = values[here]
    if not np.array_equal(found[labels[here]], values[here]):
        raise Unfit("elements of one channel are multiplied by different weights")
    return found


def _variance(
    g: Graph, value: int, labels: Labels, root: str
) -> tuple[dict[str, Labels], float]:
    """Returns the leaf v in 1 / sqrt(v + epsilon) within a product, and epsilon."""
    nothing: tuple[dict[str, Labels], float] = ({}, 0.0)
    if value not in g.maker or len(g.readers[value]) > 1:
        return nothing
    node = g.nodes[g.maker[value]]
    if node.kind in ("mul", "div"):
        for number, side in enumerate(node.ins):
            inside = channels.gathered(labels, g.shapes[side].shape)
            below = "sqrt" if node.kind == "div" and number else root
            if inside is not None:
                found = _variance(g, side, inside, below)
                if found[0]:
                    return found
        return nothing
    if node.kind == (root or "rsqrt"):
        return _sum(g, node.ins[0], labels)
    if len(node.ins) != 1:
        return nothing
    before = channels.moved_back(node, labels, g.shapes[node.ins[0]].shape)
    return nothing if before is None else _variance(g, node.ins[0], before, root)


def _sum(g: Graph, value: int, labels: Labels) -> tuple[dict[str, Labels], float]:
    """Returns the leaf and the constant that a value is the sum of."""
    epsilon = 0.0
    try:
        node = g.nodes[g.maker[value]] if value in g.maker else None
        if node is not None and node.kind == "add":
            known = [v in g.constants for v in node.ins]
            if known.count(True) == 1 and len(g.readers[value]) == 1:
                constant = np.asarray(g.constants[node.ins[known.index(True)]])
                if constant.size == 1:
                    epsilon, value = float(constant), node.ins[known.index(False)]
                    labels = channels.gathered(labels, g.shapes[value].shape)
        found = absorb.factors(g, value, labels)
    except Unfit:
        return {}, 0.0
    return (found, epsilon) if len(found) == 1 else ({}, 0.0)
