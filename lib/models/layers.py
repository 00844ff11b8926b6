"""A smaller model's weights out of some blocks of a larger one.

DistilBERT's way (Sanh et al. 2019, arXiv 1910.01108, section 3): a student begins with
one of every two layers of its teacher.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from flax import linen as nn

from lib import errors, tree

BLOCK = r"block_(\d+)"


def number(path: str, pattern: str = BLOCK) -> int | None:
    """Returns the block that a weight is of; None where it is of none.

    Args:
      path: such as `block_3/dense_0/kernel`.
      pattern: a regular expression that a whole name of the path matches, with the
        block's number as its group.
    """
    for name in path.split("/"):
        found = re.fullmatch(pattern, name)
        if found:
            return int(found.group(1))
    return None


def source(path: str, layers: Sequence[int], pattern: str = BLOCK) -> str:
    """Returns the path in the larger model from which a weight comes.

    `block_1/dense_0/kernel` comes from `block_4/dense_0/kernel` where `layers` is
    (2, 4). Paths outside blocks, and all paths where `layers` is (), stay.

    Raises:
      UserError: the block's number is not below the number of `layers`.
    """
    block = number(path, pattern)
    if block is None or not layers:
        return path
    if block >= len(layers):
        raise errors.UserError(
            f"layers: expected one for each block of the model, got {len(layers)} "
            f"and nothing for {path!r}"
        )
    return renumbered(path, layers[block], pattern)


def renumbered(path: str, block: int, pattern: str = BLOCK) -> str:
    """Returns the path of the same weight in another block."""
    names = path.split("/")
    for i, name in enumerate(names):
        found = re.fullmatch(pattern, name)
        if found:
            names[i] = name[: found.start(1)] + str(block) + name[found.end(1) :]
    return "/".join(names)


def take(params: tree.Tree, layers: Sequence[int], pattern: str = BLOCK) -> tree.Tree:
    """Returns the weights with block i out of block `layers[i]`, and no other blocks.

    What is in no block stays as it is. A block may be taken more than once.

    Args:
      params: nested dict of the larger model's weights.
      layers: blocks of the larger model, from 0, in the order of the smaller one's.
      pattern: as of `number`.

    Raises:
      UserError: a layer that the model does not have.
    """
    flat = tree.flatten(params)
    there = sorted({n for p in flat if (n := number(p, pattern)) is not None})
    for layer in layers:
        if layer not in there:
            raise errors.UserError(
                f"layers: expected blocks of {', '.join(map(str, there)) or 'none'}, "
                f"got {layer!r}"
            )
    taken = {}
    for path, leaf in flat.items():
        block = number(path, pattern)
        if block is None:
            taken[path] = leaf
        for i, layer in enumerate(layers):
            if layer == block:
                taken[renumbered(path, i, pattern)] = leaf
    return tree.unflatten(taken)


def start(
    own: tree.Tree, larger: tree.Tree, layers: Sequence[int], fresh: str = ""
) -> tree.Tree:
    """Returns a smaller model's weights, taken from a larger one.

    Args:
      own: nested dict of the smaller model's fresh weights; shapes will do.
      larger: nested dict of the larger model's weights; shapes will do.
      layers: as of `take`, one for each block of the smaller model.
      fresh: regular expression of the smaller model's paths that keep their values; ""
        for none.

    Raises:
      UserError: there are more or fewer layers than blocks; a weight that is not named
        by `fresh` is missing in the larger model, left over, or of another shape;
        `fresh` matches nothing.
    """
    mine = tree.flatten(own)
    check_count(mine, layers)
    taken = tree.flatten(take(larger, layers))
    kept = tree.match([fresh], mine) if fresh else {}
    for path in [*mine, *taken]:
        if path in kept:
            continue
        shapes = [
            tuple(there[path].shape) if path in there else "none"
            for there in (mine, taken)
        ]
        if shapes[0] != shapes[1]:
            raise errors.UserError(
                f"layers: expected {path!r} to be alike in both models, got shape "
                f"{shapes[0]} in the smaller and {shapes[1]} in the larger one; name "
                "in `fresh` what is not to be taken"
            )
    return tree.unflatten({p: x if p in kept else taken[p] for p, x in mine.items()})


def check_count(paths: Iterable[str], layers: Sequence[int]) -> None:
    """Raises a `UserError` unless there is a layer for each block of a model.

    Args:
      paths: of the smaller model's weights.
      layers: as of `take`.
    """
    blocks = {n for path in paths if (n := number(path)) is not None}
    if len(layers) != len(blocks):
        raise errors.UserError(
            f"layers: expected one for each of the model's {len(blocks)} blocks, got "
            f"{tuple(layers)}"
        )


def check_alike(smaller: nn.Module, larger: nn.Module) -> None:
    """Raises a `UserError` unless two models differ in depth and dropout alone.

    Shapes do not tell everything: heads may be joined, or activations differ.
    """
    names = [type(module).__name__ for module in (smaller, larger)]
    if names[0] != names[1]:
        raise errors.UserError(
            f"layers: expected the {names[1]} whose layers are taken, got {names[0]}"
        )
    for field in dataclasses.fields(smaller):
        if field.name in _MAY_DIFFER:
            continue
        values = [getattr(module, field.name) for module in (smaller, larger)]
        if values[0] != values[1]:
            raise errors.UserError(
                f"layers: expected {names[0]}.{field.name}={values[1]!r}, as of the "
                f"model whose layers are taken, got {values[0]!r}"
            )


_MAY_DIFFER = ("layers", "dropout", "axis_name", "name", "parent")
