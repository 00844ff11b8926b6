"""The bodies of a program: where they stand, and which of them cannot be entered."""

from typing import NamedTuple

from jax.extend import core

from lib.program import flow
from lib.program.points import CONTRACTIONS, Path

# Contractions that are primitives of their own, with other operands than a site has.
FOREIGN = {"ragged_dot_general": "its rows are grouped at run time"}


class Place(NamedTuple):
    """Where a body stands: its scope, the scans and the control flow around it, and
    the numbers of the equations and bodies that lead there."""

    scope: str
    scans: tuple[int, ...]
    around: tuple[str, ...]
    path: Path

    def below(self, eqn: core.JaxprEqn, *path: int) -> "Place":
        """Returns the place of a body of an equation that stands here."""
        name, scans, around = eqn.primitive.name, self.scans, self.around
        if name == "scan":
            scans += (eqn.params["length"],)
        if name in ("scan", "while", "cond"):
            around += (name,)
        return Place(self.join(eqn), scans, around, (*self.path, *path))

    def join(self, eqn: core.JaxprEqn) -> str:
        """Returns the full scope of an equation that stands here."""
        own = str(eqn.source_info.name_stack)
        return "/".join(part for part in (self.scope, own) if part)


def holds(eqn: core.JaxprEqn) -> int:
    """Returns how many contractions an equation is or has inside, at any depth."""
    if eqn.primitive.name in (*CONTRACTIONS, *FOREIGN):
        return 1
    return sum(
        holds(inner)
        for body in core.jaxprs_in_params(eqn.params)
        for inner in body.eqns
    )


def closed(eqn: core.JaxprEqn) -> str:
    """Returns why the bodies of an equation cannot be entered; empty if they can."""
    name, params = eqn.primitive.name, eqn.params
    if name in FOREIGN:
        return FOREIGN[name]
    count = holds(eqn)
    inside = f"{count} contraction{'s' if count > 1 else ''} inside"
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return f"{inside}, left whole to keep its own derivative rule"
    if name == "while" and params["cond_jaxpr"].out_avals[0].shape:
        return f"{inside} a while of which each example has its own number of turns"
    if name == "cond" and params.get("branches_platforms") is not None:
        return f"{inside} branches that are chosen by platform"
    if name in flow.CALLS or name in ("scan", "while", "cond"):
        return ""
    return f"{inside}, and no rule says how {name} uses them"
