"""Where the arguments of a traced program go, as long as nothing changes them."""

from collections.abc import Sequence
from typing import NamedTuple

from jax.extend import core

from lib.program import flow
from lib.program.sites import SIDES, Block, Program, Site

Label = int | None  # the number of an argument; None for any other value


class Use(NamedTuple):
    """One place that an argument reaches unchanged.

    Attributes:
      site: the contraction it enters; None for any other use.
      side: "lhs" or "rhs" of the site.
      by: what uses it, where that is no contraction: a primitive, or "the result".
    """

    site: Site | None
    side: str
    by: str


def uses(program: Program, wanted: Sequence[int]) -> dict[int, list[Use]]:
    """Returns every use of some arguments, in program order.

    An argument is followed into jitted functions, remat, the constants of scans and
    whiles and the branches of a cond. What a scan slices or a loop carries is used
    there and not followed.

    Args:
      program: as `sites.read` gives it.
      wanted: numbers of `program.leaves`.
    """
    found: dict[int, list[Use]] = {i: [] for i in wanted}
    labels = [i if i in found else None for i in range(len(program.leaves))]
    _note(found, _follow(program.block, labels, found), "the result")
    return found


def _note(found: dict[int, list[Use]], labels: Sequence[Label], by: str) -> None:
    """Adds a use that is no contraction to each label."""
    for label in labels:
        if label is not None:
            found[label].append(Use(None, "", by))


def _follow(
    block: Block, labels: Sequence[Label], found: dict[int, list[Use]]
) -> list[Label]:
    """Adds the uses in a block; returns the labels of its outputs."""
    env = dict(zip(block.jaxpr.invars, labels, strict=True))

    def read(atom) -> Label:
        return None if isinstance(atom, core.Literal) else env.get(atom)

    for i, eqn in enumerate(block.jaxpr.eqns):
        given = [read(atom) for atom in eqn.invars]
        if not any(label is not None for label in given):
            continue
        match block.steps.get(i):
            case None:
                _note(found, given, eqn.primitive.name)
            case Site() as site:
                for side, label in zip(SIDES, given, strict=False):
                    if label is not None:
                        found[label].append(Use(site, side, ""))
            case blocks:
                outs = _enter(eqn, blocks, given, found)
                env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in block.jaxpr.outvars]


def _enter(
    eqn: core.JaxprEqn,
    blocks: Sequence[Block],
    given: list[Label],
    found: dict[int, list[Use]],
) -> list[Label]:
    """Follows labels into the bodies of an equation; returns those of its outputs."""
    name, params = eqn.primitive.name, eqn.params
    if name in flow.CALLS:
        return _follow(blocks[0], given, found)
    # The operands that each body is given as they are; those that follow change.
    match name:
        case "scan":
            consts, _ = flow.scan_counts(params)
            shared, changing = [given[:consts]], given[consts:]
        case "while":
            ends = params["cond_nconsts"]
            starts = ends + params["body_nconsts"]
            shared, changing = [given[:ends], given[ends:starts]], given[starts:]
        case _:  # a cond: its first operand says which branch
            shared, changing = [given[1:]] * len(blocks), given[:1]
    _note(found, changing, name)
    for block, kept in zip(blocks, shared, strict=True):
        rest = [None] * (len(block.jaxpr.invars) - len(kept))
        _note(found, _follow(block, [*kept, *rest], found), name)
    return [None] * len(eqn.outvars)
