"""Follows every axis of every value through a traced program.

What must be removed together is joined, what cannot be removed is pinned with a reason.
A primitive without a rule pins all that it touches and is listed; nothing is guessed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from lib import errors
from lib.program.reach import Place
from lib.program.sites import read
from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import Units
from lib.shrink.walker import Body, Contraction, Walker


class Followed(NamedTuple):
    """A program whose values were followed.

    Attributes:
      units: the classes of units.
      body: the program, with what is known of its values.
      out_tree: structure of its result.
      leaves: what is known of each leaf of its first argument, by path.
      outs: what is known of its outputs, flat.
      roles: (path, axis of the leaf) -> "in", summed over by a contraction, "out", or
        "both" in different ones.
      contractions: in program order.
      missed: "scope: primitive" of equations without a rule that touched what could
        have been removed.
    """

    units: Units
    body: Body
    out_tree: Any
    leaves: dict[str, Held]
    outs: list[Held]
    roles: dict[tuple[str, int], str]
    contractions: list[Contraction]
    missed: list[str]


def paths_of(weights: Any) -> list[str]:
    """Returns the path of each leaf, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(weights)
    return ["/".join(str(getattr(k, "key", k)) for k in path) for path, _ in flat]


def follow(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    pinned_outputs: bool = True,
    dropped: frozenset[str] = frozenset(),
    alike: Sequence[tuple[str, str]] = (),
) -> Followed:
    """Returns a program with every axis followed.

    Args:
      f: pure, `f(weights, *args, **kwargs)`; only axes of the weights' leaves are
        removed, all other arguments stay as they are.
      args: the weights, a nested dict, and more; arrays may be `ShapeDtypeStruct`s.
      kwargs: the same.
      pinned_outputs: whether the results keep their shape.
      dropped: paths of leaves that are 0 for good.
      alike: pairs of paths of leaves of one shape whose axes are cut alike.
    """
    program = read(f, args, kwargs)
    units = Units()
    names = paths_of(args[0])
    _check_keys(args[0])
    walker = Walker(units)
    ins = []
    for path, leaf in zip(names, program.leaves, strict=False):
        one = holds.free(units, leaf.shape, fades=True)
        places = tuple(range(len(leaf.shape)))
        zero = path in dropped
        ins.append(one._replace(leaf=path, places=places, zero=zero))
    leaves = dict(zip(names, ins, strict=True))
    for a, b in alike:
        both = (errors.lookup(leaves, path, "leaf") for path in (a, b))
        for left, right in zip(*(leaf.axes for leaf in both), strict=True):
            units.join(left, right, f"{a} and {b} are one weight")
    ins += [holds.pinned(x.shape) for x in program.leaves[len(names) :]]
    body, outs = walker.walk(program.block, ins, Place("", (), (), ()))
    live = _live(program.block.jaxpr)
    for path, var in zip(names, program.block.jaxpr.invars, strict=False):
        if var not in live:
            holds.pin(units, leaves[path], "nothing that is returned depends on it")
    if pinned_outputs:
        for out in outs:
            holds.pin(units, out, "it is an output of the program")
    return Followed(
        units,
        body,
        program.out_tree,
        leaves,
        outs,
        walker.roles,
        walker.contractions,
        walker.missed,
    )


def _live(jaxpr: core.Jaxpr) -> set[Any]:
    """Returns the variables that the outputs of a program depend on."""
    live = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or live.intersection(eqn.outvars):
            live.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    return live


def _check_keys(weights: Any) -> None:
    """Raises a `UserError` for names of weights that are no names in a path."""
    for path, _ in jax.tree_util.tree_leaves_with_path(weights):
        for key in path:
            name = str(getattr(key, "key", key))
            if "/" in name:
                raise errors.UserError(
                    f"weight {name!r} has a slash in one name, as wrappers such as "
                    "nn.SpectralNorm and nn.WeightNorm give; it cannot be cut"
                )
