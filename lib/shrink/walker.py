"""Walks a traced program and says of each value what is known of its axes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from lib.program import flow
from lib.program.points import CONTRACTIONS
from lib.program.reach import Place
from lib.program.sites import SIDES, Block, Site
from lib.shrink import contractions, elements, reshapes, shapes
from lib.shrink import held as holds
from lib.shrink.held import Held
from lib.shrink.units import Units

RULES: dict[str, shapes.Rule] = {
    **dict.fromkeys(elements.KINDS, elements.rule),
    **shapes.RULES,
    "reshape": reshapes.rule,
    **contractions.RULES,
}
_DOT = CONTRACTIONS[0]


class Body(NamedTuple):
    """A jaxpr of which every value was followed.

    Attributes:
      block: the jaxpr, with its constants.
      held: what is known of each variable.
      bodies: equation number -> those of the bodies in it.
    """

    block: Block
    held: dict[core.Var, Held]
    bodies: dict[int, tuple["Body", ...]]

    def read(self, atom: Any) -> Held:
        """Returns what is known of a variable; of a literal, that it has no axes."""
        return Held((), ()) if isinstance(atom, core.Literal) else self.held[atom]


class Contraction(NamedTuple):
    """Where a contraction meets the units.

    Attributes:
      name: of its site; "" in what the sites of a program do not list.
      out: the axes of its result.
      over: the axes that it sums over, of the right operand.
      window: products of one element of `out` for one of each of `over`.
      calls: of it in a run of the program.
      data: (side, axes summed over) of each operand that is no weight.
    """

    name: str
    out: tuple[Any, ...]
    over: tuple[Any, ...]
    window: int
    calls: int
    data: tuple[tuple[str, tuple[int, ...]], ...]


class Walker:
    """Walks a program once, in order; loops until what they carry is settled."""

    def __init__(self, units: Units) -> None:
        """Begins with nothing written down."""
        self.units = units
        self.roles: dict[tuple[str, int], str] = {}
        self.contractions: list[Contraction] = []
        self.missed: list[str] = []

    def walk(
        self, block: Block, ins: Sequence[Held], place: Place
    ) -> tuple[Body, list[Held]]:
        """Returns a block whose inputs are known, followed, and its outputs."""
        jaxpr, consts = block.jaxpr, block.consts
        known = [holds.constant(self.units, c) for c in consts]
        body = Body(block, {}, {})
        body.held.update(zip(jaxpr.constvars, known, strict=True))
        body.held.update(zip(jaxpr.invars, ins, strict=True))

        def known_of(atom: Any) -> Held:
            if isinstance(atom, core.Literal):
                return holds.constant(self.units, atom.val)
            return body.held[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            given = [known_of(atom) for atom in eqn.invars]
            inside = self._inside(block, i, eqn)
            if inside:
                outs, bodies = self._enter(eqn, inside, given, place, i)
                body.bodies[i] = bodies
            else:
                outs = self._equation(eqn, block.steps.get(i), given, place)
            outs = [holds.settled(x) for x in outs]
            for x in outs:
                for axis in x.axes:
                    if axis is not None and len(axis) == 1:
                        self.units.pin(axis, "it would leave an axis of length 1 empty")
            body.held.update(zip(eqn.outvars, outs, strict=True))
        return body, [known_of(atom) for atom in jaxpr.outvars]

    def _inside(self, block, i, eqn) -> tuple[Block, ...]:
        """Returns the bodies of an equation that can be entered."""
        step, name = block.steps.get(i), eqn.primitive.name
        if isinstance(step, Site):
            return ()
        if step is not None:
            return step
        if name in flow.CALLS:
            bodies = [eqn.params[flow.CALLS[name]]]
        elif name == "cond":
            bodies = eqn.params["branches"]
        elif name == "scan":
            bodies = [eqn.params["jaxpr"]]
        elif name == "while":
            bodies = [eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]]
        else:
            bodies = []
        return tuple(Block(*flow.opened(body), {}) for body in bodies)

    def _equation(self, eqn, site, given, place) -> list[Held]:
        name = eqn.primitive.name
        rule = RULES.get(name)
        if rule is None:
            scope = place.join(eqn) or name
            live = [a for x in given for a in x.axes if a is not None]
            if any(not self.units.is_pinned(a).all() for a in live):
                self.missed.append(f"{scope}: {name}")
            for x in given:
                holds.pin(self.units, x, f"no rule says how {name} in {scope} uses it")
            return [holds.pinned(getattr(v.aval, "shape", ())) for v in eqn.outvars]
        outs = rule(self.units, eqn, given)
        if name in CONTRACTIONS:
            self._note(eqn, site, given, outs[0], place)
        return outs

    def _note(self, eqn, site, given, out, place) -> None:
        """Writes down the axes of a contraction and the roles of its leaves."""
        if eqn.primitive.name == _DOT:
            over, batch = eqn.params["dimension_numbers"]
            summed, beside, window = over, batch, 1
        else:
            dims = eqn.params["dimension_numbers"]
            summed = ((dims.lhs_spec[1],), (dims.rhs_spec[1],))
            beside = (dims.lhs_spec[2:], dims.rhs_spec[2:])
            window = math.prod(eqn.invars[1].aval.shape[i] for i in dims.rhs_spec[2:])
        for x, inside, through in zip(given, summed, beside, strict=True):
            for i, at in enumerate(x.places):
                if x.leaf and at is not None and i not in through:
                    role = "in" if i in inside else "out"
                    known = self.roles.setdefault((x.leaf, at), role)
                    self.roles[x.leaf, at] = role if known == role else "both"
        data = tuple(
            (side, tuple(axes))
            for side, axes in zip(SIDES, summed, strict=True)
            if site and side in site.activations
        )
        # The weight's own inputs: those of one group, where there are groups.
        over = tuple(given[1].axes[i] for i in summed[1])
        name = site.name if site else ""
        calls = math.prod(place.scans)
        self.contractions.append(Contraction(name, out.axes, over, window, calls, data))

    def _enter(self, eqn, blocks, given, place, i):
        """Returns the outputs of an equation with bodies, and its bodies."""
        name, params = eqn.primitive.name, eqn.params
        below = [place.below(eqn, i, k) for k in range(len(blocks))]
        if name in flow.CALLS:
            body, outs = self.walk(blocks[0], given, below[0])
            return outs, (body,)
        if name == "cond":
            walked = [
                self.walk(b, given[1:], at) for b, at in zip(blocks, below, strict=True)
            ]
            outs = walked[0][1]
            for _, other in walked[1:]:
                outs = self._met(outs, other, "branches give both")
            return outs, tuple(body for body, _ in walked)
        if name == "while":
            ends = params["cond_nconsts"]
            starts = ends + params["body_nconsts"]

            def turn(carried):
                return self.walk(blocks[1], [*given[ends:starts], *carried], below[1])

            carried, body = self._settle(turn, given[starts:], len(given[starts:]))
            test, _ = self.walk(blocks[0], [*given[:ends], *carried], below[0])
            return carried, (test, body)
        return self._scan(eqn, blocks, given, below)

    def _scan(self, eqn, blocks, given, below):
        consts, carry = flow.scan_counts(eqn.params)
        sliced = []
        for x in given[consts + carry :]:
            if x.axes[0] is not None:
                self.units.pin(x.axes[0], "a scan goes through it")
            # The leaf's axes count from its front, where the scan's own stands.
            places = x.places[1:] if x.places else ()
            sliced.append(x._replace(axes=x.axes[1:], fades=x.fades[1:], places=places))
        last: list[list[Held]] = []

        def turn(carried):
            body, outs = self.walk(
                blocks[0], [*given[:consts], *carried, *sliced], below[0]
            )
            last[:] = [outs[carry:]]
            return body, outs

        carried, body = self._settle(turn, given[consts : consts + carry], carry)
        n = eqn.params["length"]
        stacked = []
        for y in last[0]:
            front = holds.pinned((n,))
            stacked.append(
                Held((*front.axes, *y.axes), (*front.fades, *y.fades), y.zero)
            )
        return [*carried, *stacked], (body,)

    def _settle(self, turn, carried, count) -> tuple[list[Held], Body]:
        """Returns what a loop carries once another turn changes nothing."""
        carried = [x.plain()._replace(known=None) for x in carried]
        while True:
            before = len(self.contractions), len(self.missed)
            body, outs = turn(carried)
            new = self._met(carried, outs[:count], "a loop carries it")
            if all(_alike(a, b) for a, b in zip(carried, new, strict=True)):
                return new, body
            carried = new
            del self.contractions[before[0] :], self.missed[before[1] :]

    def _met(self, some, others, why: str) -> list[Held]:
        """Returns what holds of values that may be the one or the other."""
        met = []
        for a, b in zip(some, others, strict=True):
            for x, y in zip(a.axes, b.axes, strict=True):
                holds.join(self.units, x, y, why)
            both = zip(a.fades, b.fades, strict=True)
            fades = tuple(None if f is None else f & g for f, g in both)
            met.append(Held(a.axes, fades, a.zero and b.zero))
        return met


def _alike(a: Held, b: Held) -> bool:
    return a.zero == b.zero and all(
        f is None or np.array_equal(f, g) for f, g in zip(a.fades, b.fades, strict=True)
    )
