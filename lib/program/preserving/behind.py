"""What stands right behind a contraction: sums and products with weights, by channel.

As long as nobody else reads the value: `contraction + bias`, a batch norm's
`(y - mean) * multiplier + bias`, reshapes and transpositions in between.
"""

from typing import NamedTuple

import numpy as np

from lib.program.preserving import absorb, channels
from lib.program.preserving.absorb import Unfit
from lib.program.preserving.channels import Labels
from lib.program.preserving.graph import RESULT, Graph

_LINEAR = {*channels.SAME, *channels.MOVES} - {"abs", "neg"}


class Term(NamedTuple):
    """One sum or product with a value that depends on weights alone.

    Attributes:
      kind: "add", "sub", "mul" or "div"; data stand on the left of the last and "sub".
      value: the operand that depends on weights alone.
      labels: of that operand.
      scope: where it stands.
    """

    kind: str
    value: int
    labels: Labels
    scope: str


class Tail(NamedTuple):
    """A contraction and what follows it.

    Attributes:
      weight: {path: labels} of the contraction's weight, a channel for each output.
      count: how many channels there are.
      terms: in program order.
      end: why no more terms were looked for.
    """

    weight: dict[str, Labels]
    count: int
    terms: tuple[Term, ...]
    end: str


def tail(g: Graph, number: int) -> Tail:
    """Returns what follows the contraction with a weight at this node.

    Raises:
      Unfit: its weight is no leaf, or is read at other places too.
    """
    node = g.nodes[number]
    side = g.weighed(node)
    placed, labels = channels.outputs(node, side)
    if labels is None:
        raise Unfit(f"{node.scope}: its weight is no kernel")
    weight = absorb.factors(g, node.ins[side], placed)
    if len(weight) != 1:
        raise Unfit(f"{node.scope}: its weight is no leaf")
    value, terms = node.outs[0], []

    def done(end: str) -> Tail:
        return Tail(weight, int(placed.max()) + 1, tuple(terms), end)

    while True:
        readers = g.readers[value]
        if RESULT in readers:
            return done("it is a result of the program")
        if len(readers) > 1:
            return done(f"its output is read at {len(readers)} places")
        after = g.nodes[readers[0]]
        if after.kind in ("add", "sub", "mul", "div"):
            first = after.ins[0] == value
            other = after.ins[1 if first else 0]
            if other in g.data or not (first or after.kind in ("add", "mul")):
                return done(f"{after.kind} in {after.scope} follows")
            labels = np.broadcast_to(labels, g.shapes[after.outs[0]].shape)
            inside = channels.gathered(labels, g.shapes[other].shape)
            if inside is None or other in g.constants:
                return done(f"a constant {after.kind} in {after.scope} follows")
            terms.append(Term(after.kind, other, inside, after.scope))
        elif after.kind in _LINEAR and len(after.ins) == 1:
            labels = channels.moved(after, labels)
        else:
            return done(f"{after.kind} in {after.scope} follows")
        value = after.outs[0]
