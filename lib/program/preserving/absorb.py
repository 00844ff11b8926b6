"""Factors and summands handed to the leaves that a weights-only value is made of."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lib import tree
from lib.program.preserving import channels
from lib.program.preserving.channels import NONE, Labels
from lib.program.preserving.graph import Graph, Node


class Unfit(ValueError):
    """What was looked for is not there; the message says why, for a person to read."""


def factors(g: Graph, value: int, labels: Labels) -> dict[str, Labels]:
    """Returns the leaves to multiply so that a value is multiplied, by channel.

    Args:
      g: the program.
      value: one that depends on weights alone.
      labels: of the value.

    Returns:
      `{path: labels}`: element e of the leaf takes the factor of channel `labels[e]`.

    Raises:
      Unfit: no leaves do that, or something else reads them too.
    """
    if (labels == NONE).all() or g.is_zero(value):
        return {}
    node = _only(g, value)
    if node is None:
        return {g.paths[value]: labels}
    if node.kind in ("mul", "div"):
        sides = node.ins if node.kind == "mul" else node.ins[:1]
        why = Unfit(f"{node.scope}: no leaf to scale behind {node.kind}")
        for side in sides:
            try:
                return factors(g, side, _operand(g, node, side, labels))
            except Unfit as e:
                why = e
        raise why
    if node.kind in ("add", "sub"):
        first, second = (factors(g, s, _operand(g, node, s, labels)) for s in node.ins)
        return {**first, **second}
    return factors(g, node.ins[0], _back(g, node, labels))


def summand(g: Graph, value: int, labels: Labels) -> tuple[str, int, Labels]:
    """Returns the leaf to add to so that a value is added to, channel by channel.

    Args:
      g: the program.
      value: one that depends on weights alone.
      labels: of the value.

    Returns:
      (path, 1 or -1, labels of the leaf): the sign is that of the leaf in the value.

    Raises:
      Unfit: there is no such leaf, or something else reads it too.
    """
    node = _only(g, value)
    if node is None:
        return g.paths[value], 1, labels
    if node.kind in ("add", "sub"):
        why = Unfit(f"{node.scope}: no leaf to add to")
        for number, side in enumerate(node.ins):
            try:
                found = summand(g, side, _operand(g, node, side, labels))
            except Unfit as e:
                why = e
                continue
            path, sign, placed = found
            return path, -sign if node.kind == "sub" and number else sign, placed
        raise why
    if node.kind == "abs":
        raise Unfit(f"{node.scope}: no sum passes through {node.kind}")
    path, sign, placed = summand(g, node.ins[0], _back(g, node, labels))
    return path, -sign if node.kind == "neg" else sign, placed


def _only(g: Graph, value: int) -> Node | None:
    """Returns what makes a value that is read once; None for a leaf."""
    if value in g.constants:
        raise Unfit("a constant of the program, no weight")
    name = g.paths.get(value)
    if len(g.readers[value]) > 1:
        what = name or f"what {g.nodes[g.maker[value]].scope} makes of weights"
        raise Unfit(f"{what} is read at {len(g.readers[value])} places")
    return None if name is not None else g.nodes[g.maker[value]]


def _operand(g: Graph, node: Node, side: int, labels: Labels) -> Labels:
    found = channels.gathered(labels, g.shapes[side].shape)
    if found is None:
        raise Unfit(f"{node.scope}: one weight for several channels")
    return found


def _back(g: Graph, node: Node, labels: Labels) -> Labels:
    if len(node.ins) != 1:
        raise Unfit(f"{node.scope}: {node.kind} of weights is not followed")
    found = channels.moved_back(node, labels, g.shapes[node.ins[0]].shape)
    if found is None:
        raise Unfit(f"{node.scope}: {node.kind} of weights is not followed")
    return found


def place(labels: Labels, values: np.ndarray, fill: float) -> np.ndarray:
    """Returns each element's value by its label, `fill` where it has none."""
    return np.where(labels == NONE, fill, np.asarray(values)[labels])


def multiplied(weights: Any, labels: dict[str, Labels], by: np.ndarray) -> Any:
    """Returns weights with the leaves at these paths multiplied by channel.

    Args:
      weights: a nested dict of arrays.
      labels: {path: labels of the leaf}.
      by: `[channels]`.
    """
    return changed(weights, labels, lambda path, w: w * place(labels[path], by, 1))


def changed(weights: Any, paths: Any, how: Any) -> Any:
    """Returns weights with `how(path, leaf)` at these paths, computed in float64."""
    new = {}
    for path in paths:
        leaf = jnp.asarray(tree.get(weights, path))
        wide = np.asarray(leaf.astype(jnp.float32), float)
        with np.errstate(over="ignore"):  # `preserve.check` finds what is infinite
            narrow = np.asarray(how(path, wide), np.float32)
        new[path] = jnp.asarray(narrow).astype(leaf.dtype)
    return tree.replace(weights, new)
