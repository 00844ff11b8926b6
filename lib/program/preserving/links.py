"""Scales that can move: from what makes a value, through the value, to what reads it.

If each channel of a value is multiplied by a positive factor and every contraction that
reads it has the rows of its weight divided by the same, the program computes what it
did. A *link* is such a value with everything that takes part. It is found by following
the traced program from its source: through what is positively homogeneous (relu, max
and mean pooling, reshapes, products with what is not scaled), past biases, which are
scaled along, to contractions with weights. Anything else on the way undoes the link.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lib.program.preserving import absorb, channels
from lib.program.preserving.absorb import Unfit
from lib.program.preserving.channels import NONE, Labels
from lib.program.preserving.graph import RESULT, Graph, Node, graph
from lib.program.preserving.norms import Norm, norm
from lib.program.sites import SIDES, Missed


class Reader(NamedTuple):
    """A contraction at a link's end.

    Attributes:
      site: its name.
      side: of the input, `lhs` or `rhs`.
      axes: the input's axes that meet the weight.
      labels: over these axes, the channels of the link.
      path: of the weight.
    """

    site: str
    side: str
    axes: tuple[int, ...]
    labels: Labels
    path: str


class Link(NamedTuple):
    """A value whose channels can be scaled without changing the program's result.

    Attributes:
      source: the contraction's name, or the scope of the scale.
      kind: "contraction", or "scale": a product of data with a weight, as a norm's.
      path: the weight there: the contraction's, or the scale.
      channels: how many there are.
      grow: {path: labels} of the leaves to multiply: the weight and biases behind it.
      shrink: {path: labels} of the readers' weights, to divide.
      readers: the contractions that read the value.
      norms: products with weights on the way, whose statistics move along.
      order: of the source in the program.
    """

    source: str
    kind: str
    path: str
    channels: int
    grow: dict[str, Labels]
    shrink: dict[str, Labels]
    readers: tuple[Reader, ...]
    norms: tuple[Norm, ...]
    order: int

    @property
    def paths(self) -> tuple[str, ...]:
        """The leaves that change when it is scaled."""
        norms = [path for n in self.norms for path in (*n.variance, *n.scale)]
        return (*self.grow, *norms, *self.shrink)

    def scaled(self, weights: Any, by: np.ndarray) -> Any:
        """Returns weights with the value multiplied by `by`, `[channels]`, above 0."""
        for found in self.norms:
            weights = found.moved(weights, by, found.multiplier(weights))
        weights = absorb.multiplied(weights, self.grow, by)
        return absorb.multiplied(weights, self.shrink, 1 / by)


def links(f: Callable[..., Any]) -> Callable[..., tuple[list[Link], list[Missed]]]:
    """Returns a function of f's arguments that lists f's links, in program order.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.

    Args:
      f: pure, `f(weights, *args)`; `weights` is a nested dict.

    Returns:
      The links, and each contraction with a weight that ends none, and why not.
    """

    def listing(weights, *args):
        g = graph(f)(weights, *args)
        found, failed = [], {}
        for i, node in enumerate(g.nodes):
            try:
                link = _link(g, i, node)
            except Unfit as e:
                failed[i] = str(e)
                continue
            if link:
                found.append(link)
        ends = {reader.site for link in found for reader in link.readers}
        missed = [
            Missed(node.scope, node.kind, _why(g, node, failed))
            for node in g.nodes
            if node.site and g.weighed(node) is not None and node.scope not in ends
        ]
        return found, missed

    return listing


def _link(g: Graph, number: int, node: Node) -> Link | None:
    """Returns the link from a node; None if the node is no source."""
    if node.site:
        side = g.weighed(node)
        if side is None:
            return None
        weight, labels = channels.outputs(node, side)
        if labels is None:
            raise Unfit(f"{node.scope}: its weight is no kernel")
        kind, value = "contraction", node.ins[side]
    elif node.kind == "mul":
        marks = [value in g.data for value in node.ins]
        if marks[0] == marks[1]:
            return None
        value = node.ins[marks.index(False)]
        shape = g.shapes[value].shape
        if value in g.constants or int(np.prod(shape)) < 2:
            return None
        weight = np.arange(int(np.prod(shape))).reshape(shape)
        labels = np.broadcast_to(weight, g.shapes[node.outs[0]].shape)
        kind = "scale"
    else:
        return None
    grow = absorb.factors(g, value, weight)
    (path,) = grow
    walk = _Walk(g, grow)
    walk.follow(number, labels)
    if not walk.readers:
        raise Unfit(f"{node.scope}: no contraction reads it")
    count = int(weight.max()) + 1
    return Link(
        source=node.scope,
        kind=kind,
        path=path,
        channels=count,
        grow=grow,
        shrink=walk.shrink,
        readers=tuple(walk.readers),
        norms=tuple(walk.norms),
        order=number,
    )


class _Walk:
    """Follows scaled channels from a node to the ends of the program."""

    def __init__(self, g: Graph, grow: dict[str, Labels]) -> None:
        self.g, self.grow = g, grow
        self.shrink: dict[str, Labels] = {}
        self.readers: list[Reader] = []
        self.norms: list[Norm] = []
        self._labels: dict[int, Labels] = {}

    def follow(self, number: int, labels: Labels) -> None:
        """Walks to the end, or raises `Unfit`."""
        self._mark(self.g.nodes[number], labels)
        for node in self.g.nodes[number + 1 :]:
            held = [self._labels.get(value) for value in node.ins]
            if any(x is not None for x in held):
                self._step(node, held)

    def _mark(self, node: Node, labels: Labels | None) -> None:
        if labels is None:
            raise Unfit(f"{node.scope}: {node.kind} mixes its channels")
        value = node.outs[0]
        if RESULT in self.g.readers[value]:
            raise Unfit(f"{node.scope}: it is a result of the program")
        self._labels[value] = labels

    def _step(self, node: Node, held: list[Labels | None]) -> None:
        kind = node.kind
        if node.site:
            self._contraction(node, held)
        elif kind in ("add", "sub", "max", "min", "mul", "div"):
            self._mark(node, self._pair(node, held))
        elif kind in ("ge", "gt", "le", "lt") and self._zeros(node, held):
            # A sign does not change, nor which of two on one scale is larger.
            scaled = [x for x in held if x is not None]
            if not channels.same(*scaled):
                raise Unfit(f"{node.scope}: {kind} of different channels")
        elif kind == "select_n" and held[0] is None and self._zeros(node, held[1:], 1):
            labels = [x for x in held if x is not None]
            self._mark(node, labels[0] if channels.same(*labels) else None)
        elif kind == "concatenate":
            parts = [
                np.full(self.g.shapes[value].shape, NONE) if x is None else x
                for value, x in zip(node.ins, held, strict=True)
            ]
            self._mark(node, np.concatenate(parts, node.eqn.params["dimension"]))
        elif kind == "pad" and self.g.is_zero(node.ins[1]):
            self._mark(node, channels.padded(node, held[0]))
        elif len(node.ins) == 1 == len(node.outs):
            whole = not jnp.issubdtype(self.g.shapes[node.outs[0]].dtype, jnp.floating)
            if kind not in channels.FOLLOWED or whole:
                raise Unfit(f"{node.scope}: {kind} is not homogeneous")
            self._mark(node, channels.moved(node, held[0]))
        else:
            raise Unfit(f"{node.scope}: {kind} is not homogeneous")

    def _zeros(self, node: Node, held: list[Labels | None], first: int = 0) -> bool:
        """Returns whether the operands that are not scaled, from `first`, are zeros."""
        return all(
            x is not None or self.g.is_zero(value)
            for value, x in zip(node.ins[first:], held, strict=True)
        )

    def _pair(self, node: Node, held: list[Labels | None]) -> Labels | None:
        """Returns the labels of a result of two operands, one or both scaled."""
        shape = self.g.shapes[node.outs[0]].shape
        if held[0] is not None and held[1] is not None:
            if node.kind in ("mul", "div"):
                raise Unfit(f"{node.scope}: {node.kind} of it and itself")
            return held[0] if channels.same(*held) else None
        number = 0 if held[1] is None else 1
        labels = np.broadcast_to(held[number], shape)
        other = node.ins[1 - number]
        if node.kind == "mul" or (node.kind == "div" and number == 0):
            if other not in self.g.data:
                self._norm(node, other, labels)
            return labels
        if self.g.is_zero(other) and node.kind != "div":
            return labels
        if node.kind in ("add", "sub"):
            if other in self.g.data:
                raise Unfit(f"{node.scope}: another value is added to it")
            inside = channels.gathered(labels, self.g.shapes[other].shape)
            if inside is None:
                raise Unfit(f"{node.scope}: one weight for several channels")
            self.grow.update(absorb.factors(self.g, other, inside))
            return labels
        raise Unfit(f"{node.scope}: {node.kind} is not homogeneous")

    def _norm(self, node: Node, other: int, labels: Labels) -> None:
        """Notes a product with weights whose statistics have to move along."""
        inside = channels.gathered(labels, self.g.shapes[other].shape)
        if inside is None:
            return
        found = norm(self.g, node.scope, node.kind, other, inside)
        if found.variance and not found.scale:
            raise Unfit(f"{node.scope}: a norm without a scale to make up for it")
        if found.variance:
            self.norms.append(found)

    def _contraction(self, node: Node, held: list[Labels | None]) -> None:
        side = 0 if held[1] is None else 1
        if held[0] is not None and held[1] is not None:
            raise Unfit(f"{node.scope}: a product of it and itself")
        if self.g.weighed(node) is None:
            self._mark(node, channels.through(node, side, held[side]))
            return
        weight = node.ins[1 - side]
        try:
            labels = channels.meeting(node, side, held[side])
            axes, met = channels.entering(node, side, held[side])
        except ValueError as e:
            raise Unfit(f"{node.scope}: {e}") from e
        found = absorb.factors(self.g, weight, labels)
        if len(found) != 1:
            raise Unfit(f"{node.scope}: its weight is no leaf")
        self.shrink.update(found)
        self.readers.append(Reader(node.scope, SIDES[side], axes, met, *found))


_PASSED = {*channels.FOLLOWED, "add", "sub", "max", "min", "mul", "div", "select_n"}


def _why(g: Graph, node: Node, failed: dict[int, str]) -> str:
    """Returns why a contraction ends no link: what stands before it."""
    value = node.ins[1 - g.weighed(node)]
    while value in g.maker:
        number = g.maker[value]
        if number in failed:
            return failed[number]
        before = g.nodes[number]
        if before.kind not in _PASSED:
            return f"{before.scope}: {before.kind} is not homogeneous"
        operands = before.ins[1:] if before.kind == "select_n" else before.ins
        value = next((v for v in operands if v in g.data), -1)
    return "its input is the program's"
