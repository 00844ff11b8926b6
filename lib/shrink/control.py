"""Control flow entered at the sizes that are left.

Each function takes the runner, the body around the equation, the equation, its small
operands (None for zeros) and the bodies inside of it, and returns the small outputs.
"""

import jax
from jax import lax

from lib.program import flow


def call(runner, body, eqn, given, inside, outs):
    """Runs the body of a jitted function in place."""
    return runner.enter(inside[0], given)


def remat(runner, body, eqn, given, inside, outs):
    """Runs a checkpointed function under the same policy."""
    prevent_cse = eqn.params["prevent_cse"]
    if isinstance(prevent_cse, tuple):  # one per operand
        prevent_cse = all(prevent_cse)
    there = [x for x in given if x is not None]

    def run(*some):
        rest = iter(some)
        full = [None if x is None else next(rest) for x in given]
        return runner.solid(inside[0], runner.enter(inside[0], full))

    run = jax.checkpoint(run, prevent_cse=prevent_cse, policy=eqn.params["policy"])
    return run(*there)


def scan(runner, body, eqn, given, inside, outs):
    """Runs a scan of the small body."""
    (inner,) = inside
    consts, carry = flow.scan_counts(eqn.params)
    given = runner.written(body, eqn.invars, given)
    fixed, xs = given[:consts], given[consts + carry :]

    def turn(carried, sliced):
        made = runner.solid(inner, runner.enter(inner, [*fixed, *carried, *sliced]))
        return made[:carry], made[carry:]

    carried, ys = lax.scan(
        turn,
        given[consts : consts + carry],
        xs,
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*carried, *ys]


def while_(runner, body, eqn, given, inside, outs):
    """Runs a while of the small bodies."""
    test, turn = inside
    ends = eqn.params["cond_nconsts"]
    starts = ends + eqn.params["body_nconsts"]
    given = runner.written(body, eqn.invars, given)

    def go(block, consts, carried):
        return runner.solid(block, runner.enter(block, [*consts, *carried]))

    return lax.while_loop(
        lambda carried: go(test, given[:ends], carried)[0],
        lambda carried: go(turn, given[ends:starts], carried),
        given[starts:],
    )


def cond(runner, body, eqn, given, inside, outs):
    """Runs the small branches of a cond."""
    index, *operands = runner.written(body, eqn.invars, given)

    def branch(block):
        return lambda some: runner.solid(block, runner.enter(block, some))

    return lax.switch(index, [branch(block) for block in inside], operands)
