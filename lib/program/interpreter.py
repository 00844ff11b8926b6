"""Runs a traced program again, with a step of our own at each contraction.

A step may be fed values and may record values, by the name of its site. Under a scan
both have a leading axis of the scan's length (nested scans: one axis each, outermost
first): feeds enter as further `xs` and records leave as further `ys`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core, source_info_util

from lib.program import flow
from lib.program.sites import Block, Program, Site

Bind = Callable[[jax.Array, jax.Array], jax.Array]
# (site, lhs, rhs, bind, feed or None) -> (out, record or None); bind(lhs, rhs) is the
# contraction itself.
Step = Callable[[Site, jax.Array, jax.Array, Bind, Any], tuple[jax.Array, Any]]
Named = dict[str, Any]  # site name -> feed or record


def execute(
    program: Program, step: Step, feeds: Mapping[str, Any]
) -> tuple[Any, Named]:
    """Returns the program's result and the records, in program order.

    Raises:
      TypeError: a step returns another shape or dtype than its contraction has.
      ValueError: a step records inside a while or cond, which nothing can leave.
    """
    outs, records = _run(program.block, program.leaves, step, dict(feeds))
    ordered = {s.name: records[s.name] for s in program.sites if s.name in records}
    return jax.tree.unflatten(program.out_tree, outs), ordered


def _run(
    block: Block, args: Sequence[Any], step: Step, feeds: Named
) -> tuple[list[Any], Named]:
    """Returns the outputs of a block and the records of the sites in it."""
    env = dict(zip(block.jaxpr.constvars, block.consts, strict=True))
    env.update(zip(block.jaxpr.invars, args, strict=True))
    records: Named = {}

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for i, eqn in enumerate(block.jaxpr.eqns):
        operands = [read(atom) for atom in eqn.invars]
        with scoped(eqn):
            match block.steps.get(i):
                case None:
                    outs, new = bind(eqn, operands), {}
                case Site() as site:
                    outs, new = _contract(eqn, operands, site, step, feeds)
                case blocks:
                    names = {s.name for b in blocks for s in b.sites()}
                    below = {k: v for k, v in feeds.items() if k in names}
                    enter = _ENTER[eqn.primitive.name]
                    outs, new = enter(eqn, operands, blocks, step, below)
        records.update(new)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in block.jaxpr.outvars], records


@contextlib.contextmanager
def scoped(eqn: core.JaxprEqn) -> Iterator[None]:
    """Runs what is inside in the scope of an equation.

    The scope is part of the program: what is traced from there is named alike.
    """
    scope = source_info_util.current_name_stack() + eqn.source_info.name_stack
    trace = eqn.source_info.traceback
    with source_info_util.user_context(trace, name_stack=scope), eqn.ctx.manager:
        yield


def bind(eqn: core.JaxprEqn, operands: Sequence[Any], **changes: Any) -> list[Any]:
    """Returns the outputs of an equation left whole, but for some of its numbers."""
    params = {**eqn.primitive.get_bind_params(eqn.params), **changes}
    outs = eqn.primitive.bind(*operands, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _contract(eqn, operands, site, step, feeds):
    lone = [None] * (2 - len(operands))  # of a mean there is no rhs

    def bind(lhs, rhs):
        given = (lhs,) if lone else (lhs, rhs)
        return eqn.primitive.bind(*given, **eqn.params)

    out, record = step(site, *operands, *lone, bind, feeds.get(site.name))
    if (out.shape, out.dtype) != (site.out.shape, site.out.dtype):
        raise TypeError(
            f"site {site.name!r}: the handler returned {out.dtype}{list(out.shape)}, "
            f"the contraction has {site.out.dtype}{list(site.out.shape)}"
        )
    return [out], {} if record is None else {site.name: record}


def _call(eqn, operands, blocks, step, feeds):
    """Enters a jit or closed_call; one with shardings stays a jit of its own."""
    (block,) = blocks

    def body(operands, feeds):
        return _run(block, operands, step, feeds)

    ins, outs = (
        [s if isinstance(s, jax.sharding.Sharding) else None for s in shardings]
        for shardings in (
            eqn.params.get("in_shardings", ()),
            eqn.params.get("out_shardings", ()),
        )
    )
    if any(s is not None for s in (*ins, *outs)):
        body = jax.jit(body, in_shardings=(ins, None), out_shardings=(outs, None))
    return body(operands, feeds)


def _remat(eqn, operands, blocks, step, feeds):
    (block,) = blocks
    prevent_cse = eqn.params["prevent_cse"]
    if isinstance(prevent_cse, tuple):  # one per operand, and one for the feeds
        prevent_cse = (prevent_cse, True)

    def body(operands, feeds):
        return _run(block, operands, step, feeds)

    body = jax.checkpoint(body, prevent_cse=prevent_cse, policy=eqn.params["policy"])
    return body(tuple(operands), feeds)


def _scan(eqn, operands, blocks, step, feeds):
    (block,) = blocks
    consts, carry = flow.scan_counts(eqn.params)
    fixed, xs = operands[:consts], operands[consts + carry :]

    def body(carried, sliced):
        xs, feeds = sliced
        outs, records = _run(block, [*fixed, *carried, *xs], step, feeds)
        return outs[:carry], (outs[carry:], records)

    carried, (ys, records) = lax.scan(
        body,
        operands[consts : consts + carry],
        (xs, feeds),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*carried, *ys], records


def _while(eqn, operands, blocks, step, feeds):
    test, turn = blocks
    ends = eqn.params["cond_nconsts"]
    starts = ends + eqn.params["body_nconsts"]

    def condition(carried):
        args = [*operands[:ends], *carried]
        return _without_records(test, args, step, feeds)[0]

    def body(carried):
        args = [*operands[ends:starts], *carried]
        return _without_records(turn, args, step, feeds)

    return lax.while_loop(condition, body, operands[starts:]), {}


def _cond(eqn, operands, blocks, step, feeds):
    index, *operands = operands

    def branch(block):
        return lambda operands: _without_records(block, operands, step, feeds)

    return lax.switch(index, [branch(block) for block in blocks], operands), {}


def _without_records(block, args, step, feeds):
    outs, records = _run(block, args, step, feeds)
    if records:
        raise ValueError(f"records cannot leave a while or cond: {list(records)}")
    return outs


# What `sites` may put in a block's steps.
_ENTER = {
    "jit": _call,
    "closed_call": _call,
    "eval_jaxpr": _call,
    "remat2": _remat,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
