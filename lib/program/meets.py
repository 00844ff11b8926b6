"""Which weight meets which contraction of a program, and where its elements stand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lib.program import flow
from lib.program.sites import Block, Missed, Program, Site

# Equations that move a weight's elements and change none, in row-major order.
_IN_ORDER = (
    "broadcast_in_dim",  # here only where nothing is repeated
    "convert_element_type",
    "copy",
    "copy_p",
    "optimization_barrier",
    "reshape",
    "sharding_constraint",
    "squeeze",
)


class Weight(NamedTuple):
    """A value of the program that holds the elements of one parameter.

    Attributes:
      path: the parameter's.
      places: int array of the value's shape: where in the parameter, flat, each
        element stands; in the slice of one turn, where scans give slices.
      sliced: for each scan around the value, whether it gives a slice a turn.
    """

    path: str
    places: np.ndarray
    sliced: tuple[bool, ...]


class Meeting(NamedTuple):
    """A contraction that a parameter enters as it is.

    Attributes:
      path: the parameter's.
      side: the parameter's operand, `lhs` or `rhs`; the other one is the input.
      columns: int `[contraction]`: which element along the contracted axes of the
        operand (see `axes`), flat, meets each row of the parameter.
      sliced: see `Weight`.
      groups: of a convolution: each of so many kernels, equal shares of the outputs,
        has an equal share of the features as its input.
    """

    path: str
    side: str
    columns: np.ndarray
    sliced: tuple[bool, ...]
    groups: int = 1


def meetings(
    program: Program, params: Any
) -> tuple[dict[str, Meeting], dict[str, Missed]]:
    """Returns `{site: meeting}`, and why the others that were found cannot be used.

    Args:
      program: a function traced with `params` as its first argument.
      params: its leaves arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The meetings, and `{path: Missed}` of the parameters of which a contraction was
      found but cannot be read; no meeting of such a one is returned.
    """
    arrays = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
    leaves = [
        Weight(
            jax.tree_util.keystr(place, simple=True, separator="/"),
            np.arange(np.prod(x.shape, dtype=int)).reshape(x.shape),
            (),
        )
        for place, x in jax.tree_util.tree_leaves_with_path(params)
        if isinstance(x, arrays)
    ]
    walker = _Walker()
    walker.block(program.block, leaves + [None] * (len(program.leaves) - len(leaves)))
    met = {s: m for s, m in walker.met.items() if m.path not in walker.refused}
    return met, walker.refused


class _Walker:
    """Follows the parameters through a program, once, in order."""

    def __init__(self) -> None:
        self.met: dict[str, Meeting] = {}
        self.refused: dict[str, Missed] = {}

    def block(self, block: Block, args: Sequence[Weight | None]) -> list[Weight | None]:
        """Walks a block whose inputs hold these; returns what its outputs hold."""
        env = dict(zip(block.jaxpr.invars, args, strict=True))

        def read(atoms):
            return [None if isinstance(a, core.Literal) else env.get(a) for a in atoms]

        for i, eqn in enumerate(block.jaxpr.eqns):
            held, step = read(eqn.invars), block.steps.get(i)
            if isinstance(step, Site):
                self._site(step, held)
                outs = [None]
            elif any(held):
                outs = self._equation(eqn, held, step)
            else:
                outs = []
            env.update(zip(eqn.outvars, outs, strict=False))
        return read(block.jaxpr.outvars)

    def _equation(
        self, eqn: core.JaxprEqn, held: list[Weight | None], step: Any
    ) -> list[Weight | None]:
        name, params = eqn.primitive.name, eqn.params
        if name in flow.CALLS:
            if step is None:  # no contraction inside, but a reshape perhaps
                jaxpr, consts = flow.opened(params[flow.CALLS[name]])
                step = (Block(jaxpr, consts, {}),)
            return self.block(step[0], held)
        if step is not None:
            for block, inside in zip(step, _inside(eqn, held), strict=True):
                self.block(block, inside)
            return []
        return [_moved(eqn, w, out) for w, out in zip(held, eqn.outvars, strict=False)]

    def _site(self, site: Site, held: Sequence[Weight | None]) -> None:
        for side, weight in zip(("lhs", "rhs"), held, strict=False):  # a mean has one
            if weight is None:
                continue
            found = _meet(site, side, weight)
            if not isinstance(found, str):
                found = self._unlike(found) or found
            if isinstance(found, str):
                why = f"{site.name}: {found}"
                self.refused.setdefault(
                    weight.path, Missed(weight.path, site.primitive, why)
                )
            else:
                self.met[site.name] = found

    def _unlike(self, found: Meeting) -> str:
        """Returns why statistics of a meeting do not add up with earlier ones."""
        earlier = [m for m in self.met.values() if m.path == found.path]
        if any(sum(m.sliced) != sum(found.sliced) for m in earlier):
            return "it is used both whole and in the slices of a scan"
        if any(m.groups != found.groups for m in earlier):
            return "it is used in convolutions of different numbers of groups"
        return ""


def _moved(eqn: core.JaxprEqn, weight: Weight | None, out: Any) -> Weight | None:
    """Returns what an output holds of the operand of the same number, if all of it."""
    aval, places = out.aval, weight and weight.places
    if weight is None or not jnp.issubdtype(aval.dtype, jnp.floating):
        return None
    if eqn.primitive.name == "transpose":
        return weight._replace(places=places.transpose(eqn.params["permutation"]))
    if eqn.primitive.name in _IN_ORDER and aval.size == places.size:
        return weight._replace(places=places.reshape(aval.shape))
    return None


def _inside(eqn: core.JaxprEqn, held: list[Weight | None]) -> list[list[Weight | None]]:
    """Returns what the inputs of each body of a scan, while or cond hold.

    What a loop carries from turn to turn is no parameter any more.
    """

    def whole(weight: Weight | None) -> Weight | None:
        return weight and weight._replace(sliced=(*weight.sliced, False))

    return flow.entering(eqn, held, whole, _slice)


def _slice(weight: Weight | None) -> Weight | None:
    """Returns what each turn of a scan holds of a parameter it goes through."""
    if weight is None or not weight.places.size:
        return None
    places = weight.places
    turns = places.reshape(len(places), -1)
    starts = np.arange(len(places))[:, None] * turns.shape[1]
    if not np.array_equal(turns, turns[:1] + starts):  # not slices of its axis 0
        return None
    return Weight(weight.path, places[0], (*weight.sliced, True))


def axes(site: Site, side: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the contracted and the free axes of an operand, batch axes left out.

    A convolution's kernel is contracted over its window, then its input features.
    """
    dims = site.params["dimension_numbers"]
    if site.primitive == "conv_general_dilated":
        out, features, *window = dims.rhs_spec
        return (*window, features), (out,)
    number = ("lhs", "rhs").index(side)
    contracted, batch = dims[0][number], dims[1][number]
    rank = len(getattr(site, side).shape)
    free = [a for a in range(rank) if a not in (*contracted, *batch)]
    return tuple(contracted), tuple(free)


def _meet(site: Site, side: str, weight: Weight) -> Meeting | str:
    """Returns how a parameter meets a contraction, or why that cannot be used."""
    other = "rhs" if side == "lhs" else "lhs"
    if not site.recordable:
        return "inside a while or cond, which no statistics can leave"
    if site.lhs_is_weight and site.rhs_is_weight:
        return "it meets no data: both operands are weights"
    if other not in site.activations:
        return "its input is not of floating point"
    params, groups = site.params, 1
    if site.primitive == "conv_general_dilated":
        if side == "lhs":
            return "it is the image of a convolution, not its kernel"
        groups = params["feature_group_count"]
        if params["batch_group_count"] > 1:
            groups = params["batch_group_count"]
            return f"a convolution whose batch is in {groups} groups, one a kernel"
    elif params["dimension_numbers"][1][0]:
        return "a batched product: each of its kernels has an input of its own"
    contracted, free = axes(site, side)
    places = weight.places.transpose((*contracted, *free))
    count = int(np.prod([weight.places.shape[a] for a in contracted], dtype=int))
    places = places.reshape(count, -1)
    width = max(places.shape[1], 1)
    row = places // width  # of the parameter as [contraction, -1]
    if not (row == row[:, :1]).all():
        return "it is contracted over other than its leading axes"
    outputs = np.arange(width) // (width // groups)  # the group of each
    if groups > 1 and not (places % width // (width // groups) == outputs).all():
        return f"its outputs do not stand in the order of the {groups} groups"
    return Meeting(weight.path, side, np.argsort(row[:, 0]), weight.sliced, groups)
