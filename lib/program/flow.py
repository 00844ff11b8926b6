"""Which values of a traced program depend on data, and which on weights alone.

A value is *data* if any input marked as data reaches it, through operands or through
the choice a branch or loop makes. Loop carries are taken to their fixpoint.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

Marks = list[bool]  # one per value: True = depends on data

# The equations whose bodies are known to compute exactly what the equation does.
CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",  # closed_call, from JAX 0.11 on
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def opened(body: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """Returns the jaxpr and the constants of a body, closed or open."""
    return getattr(body, "jaxpr", body), getattr(body, "consts", ())


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many constants and how many carries a scan equation has."""
    if "ft_in" in params:  # JAX 0.11 and later
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


def bodies(eqn: core.JaxprEqn, marks: Marks) -> list[tuple[Any, Marks]]:
    """Returns each body of an equation with the marks of that body's inputs.

    Args:
      eqn: any equation.
      marks: one per operand of the equation.

    Returns:
      An empty list for an equation without bodies, or whose bodies take their inputs
      in a way not known here. A while gives its condition, then its body.
    """
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        return [(params[CALLS[name]], marks)]
    if name == "cond":
        return [(branch, marks[1:]) for branch in params["branches"]]
    if name == "scan":
        consts, carry = scan_counts(params)
        fixed, xs = marks[:consts], marks[consts + carry :]

        def turn(carried: Marks) -> Marks:
            return outputs(params["jaxpr"], fixed + carried + xs)[:carry]

        carried = _settle(turn, marks[consts : consts + carry])
        return [(params["jaxpr"], fixed + carried + xs)]
    if name == "while":
        ends = params["cond_nconsts"]
        starts = ends + params["body_nconsts"]

        def turn(carried: Marks) -> Marks:
            (chosen,) = outputs(params["cond_jaxpr"], marks[:ends] + carried)
            turned = outputs(params["body_jaxpr"], marks[ends:starts] + carried)
            return [chosen or mark for mark in turned]

        carried = _settle(turn, marks[starts:])
        return [
            (params["cond_jaxpr"], marks[:ends] + carried),
            (params["body_jaxpr"], marks[ends:starts] + carried),
        ]
    return []


def entering(
    eqn: core.JaxprEqn,
    held: list[Any],
    whole: Callable[[Any], Any],
    sliced: Callable[[Any], Any],
) -> list[list[Any]]:
    """Returns what the inputs of each body of a scan, while or cond hold.

    What a loop carries from turn to turn is no longer what it was given: None.

    Args:
      eqn: the equation.
      held: what each of its operands holds, or None.
      whole: a scan's constant -> what each of its turns holds.
      sliced: what a scan goes through -> what each of its turns holds.
    """
    name, params = eqn.primitive.name, eqn.params
    if name == "cond":
        return [held[1:]] * len(params["branches"])
    if name == "while":
        ends = params["cond_nconsts"]
        starts = ends + params["body_nconsts"]
        carried = [None] * len(held[starts:])
        return [held[:ends] + carried, held[ends:starts] + carried]
    consts, carry = scan_counts(params)
    slices = map(sliced, held[consts + carry :])
    return [[*map(whole, held[:consts]), *[None] * carry, *slices]]


def outputs(body: Any, marks: Marks) -> Marks:
    """Returns the marks of a body's outputs, given those of its inputs."""
    jaxpr, _ = opened(body)
    env = Environment(jaxpr, marks)
    for eqn in jaxpr.eqns:
        env.step(eqn)
    return env.read(jaxpr.outvars)


class Environment:
    """The marks of a jaxpr's variables, filled in equation by equation."""

    def __init__(self, jaxpr: core.Jaxpr, marks: Marks) -> None:
        """Takes the marks of the jaxpr's inputs; its constants are no data."""
        self._data = {v for v, m in zip(jaxpr.invars, marks, strict=True) if m}

    def read(self, atoms: Sequence[Any]) -> Marks:
        """Returns the marks of variables and literals."""
        return [not isinstance(a, core.Literal) and a in self._data for a in atoms]

    def step(self, eqn: core.JaxprEqn) -> None:
        """Marks the outputs of the next equation."""
        outs = _equation(eqn, self.read(eqn.invars))
        self._data.update(v for v, m in zip(eqn.outvars, outs, strict=True) if m)


def _equation(eqn: core.JaxprEqn, marks: Marks) -> Marks:
    """Returns the marks of an equation's outputs."""
    count = len(eqn.outvars)
    if eqn.effects:  # a callback may return anything
        return [True] * count
    if not any(marks):
        return [False] * count
    inside = bodies(eqn, marks)
    if not inside:
        return [True] * count
    if eqn.primitive.name == "while":
        # The carries have settled, so what goes in is what comes out.
        return inside[0][1][eqn.params["cond_nconsts"] :]
    chosen = eqn.primitive.name == "cond" and marks[0]
    ends = [outputs(body, body_marks) for body, body_marks in inside]
    return [chosen or any(end) for end in zip(*ends, strict=True)]


def _settle(turn: Callable[[Marks], Marks], carried: Marks) -> Marks:
    """Returns the carries' marks once another turn of the loop adds none."""
    while True:
        new = [a or b for a, b in zip(carried, turn(carried), strict=True)]
        if new == carried:
            return carried
        carried = new
