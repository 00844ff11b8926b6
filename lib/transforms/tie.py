"""Weights shared between layers: several leaves of a model are one.

`code`: the shared weight at the first path of a group and {} at the others, `state`:
which path stands for which (names only, no array), `decode`: the same weight at each
path. Gradients add up by differentiation (Lan et al. 2020, ALBERT, arXiv 1909.11942,
section 3.1, "cross-layer parameter sharing").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from lib import errors, representations, tree
from lib.transforms import base

STARTS = ("first", "mean")

Groups = dict[str, list[str]]  # the first path -> the others


def tie(
    *,
    layers: str = "",
    pattern: str = ".",
    every: int = 0,
    paths: Sequence[str] = (),
    start: str = "first",
) -> base.Transform:
    r"""Makes leaves of several layers one weight.

    Layers that repeat are found by their number. All of a transformer's blocks as one
    block, as ALBERT has them: `tie(layers=r"block_(\d+)/")`. Attention only:
    `pattern="attention"`; feed-forward layers only: `pattern="dense"`; groups of two
    consecutive blocks: `every=2`.

    Leaves tie whose paths are equal but for the number and whose layers fall into one
    group. A leaf that has no partner is left alone. Techniques come after it in a
    chain, and see the shared weight once.

    Args:
      layers: regular expression with one group in parentheses, the layer's number, as
        `r"block_(\d+)/"`, searched for in each path.
      pattern: regular expression; of the leaves in layers only those in whose path it
        is found. By default all: kernels, biases and norms.
      every: how many consecutive layers, by their numbers, share one weight; 0 for all
        of them.
      paths: instead of `layers`: the full paths of leaves of one shape that are to be
        one, such as the two embeddings of a model. (Input and output embeddings that
        are each other's transpose are shared in the model, by `nn.Embed.attend`.)
      start: the shared weight begins as that of the "first" layer of its group (or
        path), or as the "mean" over the group.

    Raises:
      UserError: not exactly one of `layers` and `paths`; `layers` without one group;
        fewer than two paths; a negative `every` or `every=1`, which ties nothing; an
        unknown start; at `encode`: rules that tie nothing, a path that is not there,
        leaves of one group that differ in shape or dtype.
    """
    if bool(layers) == bool(paths):
        raise errors.UserError(
            f"tie: give either layers or paths, got {layers!r} and {tuple(paths)}"
        )
    if start not in STARTS:
        raise errors.UserError(
            f"unknown start {start!r} of tied weights; {errors.hint(start, STARTS)}"
        )
    if layers:
        number, wanted = tree.compile_pattern(layers), tree.compile_pattern(pattern)
        if number.groups != 1:
            raise errors.UserError(
                "tie: layers has one group in parentheses, the layer's number, as "
                rf"'block_(\d+)/', got {layers!r} with {number.groups}"
            )
    elif len(set(paths)) < 2 or len(set(paths)) < len(paths):
        raise errors.UserError(f"tie: paths are two or more, each once, got {paths}")
    if every < 0 or every == 1:
        raise errors.UserError(
            f"tie: every is how many consecutive layers are one, at least 2, or 0 for "
            f"all, got {every}"
        )

    def by_layer(flat: Mapping[str, Any]) -> Groups:
        """Returns the groups of leaves that differ in their layer's number only."""
        places = {}  # path -> (what stands before the number, the number, after it)
        for path in flat:
            found = number.search(path)
            if found:
                digits = found[1]
                if not (digits or "").isdecimal():
                    raise errors.UserError(
                        f"tie: the group in layers={layers!r} is the layer's number, "
                        f"but in {path!r} it is {digits!r}"
                    )
                before, after = path[: found.start(1)], path[found.end(1) :]
                places[path] = before, int(digits), after
        numbers: dict[str, set[int]] = {}
        for before, digits, _ in places.values():
            numbers.setdefault(before, set()).add(digits)
        together: dict[tuple[str, int, str], dict[int, str]] = {}
        for path, (before, digits, after) in places.items():
            if wanted.search(path):
                # Consecutive as they are numbered, from 0, from 1 or in steps.
                place = sorted(numbers[before]).index(digits)
                group = before, place // every if every else 0, after
                together.setdefault(group, {})[digits] = path
        ordered = ([p for _, p in sorted(g.items())] for g in together.values())
        return {first: others for first, *others in ordered if others}

    def groups(flat: Mapping[str, Any]) -> Groups:
        """Returns what is tied in a tree of leaves, or of their shapes."""
        if paths:
            for path in paths:
                errors.lookup(flat, path, "path of tied weights")
            found = {paths[0]: list(paths[1:])}
        else:
            found = by_layer(flat)
        if not found:
            raise errors.UserError(
                f"tie: layers={layers!r} with pattern={pattern!r} and every={every} "
                f"ties nothing; paths are such as {', '.join(list(flat)[:3])}"
            )
        for first, others in found.items():
            for other in others:
                a, b = flat[first], flat[other]
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    raise errors.UserError(
                        f"tie: {first} is {a.dtype}{list(a.shape)} and {other} "
                        f"is {b.dtype}{list(b.shape)}; only equal shapes can be one"
                    )
        return found

    def encode(params):
        flat = tree.flatten(params)
        new: dict[str, Any] = {}
        state = {}
        for first, others in groups(flat).items():
            if start == "mean":
                parts = [flat[p].astype(jnp.float32) for p in (first, *others)]
                mean = sum(parts[1:], parts[0]) / len(parts)
                new[first] = mean.astype(flat[first].dtype)
            new.update((p, {}) for p in others)
            # The keys remember what is tied to what; () holds no array.
            state[first] = dict.fromkeys(others, ())
        return tree.replace(params, new), state

    def decode(code, state):
        return tree.replace(
            code, {p: tree.get(code, first) for first in state for p in state[first]}
        )

    def freeze(frozen, state):
        new = {}
        for first, others in state.items():
            at = tree.get(frozen, first)
            same = isinstance(at, representations.Tied)
            new.update((p, at if same else representations.Tied(first)) for p in others)
        return tree.replace(frozen, new)

    what = f"layers={layers}, every={every}" if layers else "paths"

    def takes(params):
        return {
            path: f"tie({what}, start={start})"
            for first, others in groups(tree.flatten(params)).items()
            for path in (first, *others)
        }

    return base.identity()._replace(
        encode=encode, decode=decode, freeze=freeze, takes=takes
    )
