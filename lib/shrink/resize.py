"""A program run at the sizes that are left of its weights, the module unchanged."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from lib import errors
from lib.program.interpreter import bind, scoped
from lib.program.reach import Place
from lib.program.sites import Block
from lib.shrink import control
from lib.shrink import plan as plans
from lib.shrink.custom import custom_jvp, custom_vjp
from lib.shrink.follow import Followed, follow
from lib.shrink.held import Held
from lib.shrink.plan import Plan
from lib.shrink.resizing import RESIZE, Sizes, take, zeros
from lib.shrink.walker import Body, Walker


def resize(f: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """Returns `f` for weights that were cut by a plan.

    `f(weights, *args, **kwargs)` is traced with weights as large as they were, and its
    equations are run at the sizes that are left: any module, as it is, however it
    reshapes, pads or splits what depends on its widths. What the program divides by
    (a number of channels) stays what it was, so that the result is that of the large
    weights with 0 wherever something was cut. Random bits are drawn at the small
    sizes. Scopes, and with them the names of sites, are kept; it passes through jit,
    grad, vmap, and can be traced, exported and rounded like `f`. Outside of jit it is
    traced and followed at every call.

    Args:
      f: pure; its weights are a nested dict.
      plan: what was cut.

    Raises (when called):
      UserError: weights of other shapes than the plan leaves, or a program that does
        not allow the cut, with the leaf and the reason.
    """

    @functools.wraps(f)
    def small(weights: Any, *args: Any, **kwargs: Any) -> Any:
        whole = plans.full(plan, weights)
        followed = follow(
            f,
            (whole, *args),
            kwargs,
            pinned_outputs=False,
            dropped=frozenset(plan.dropped),
        )
        runner = _Runner(followed, _gone(followed, plan))
        # What goes is decided: derivatives that are followed later pin nothing.
        followed.units.settled_for_good = True
        return runner.program(weights, args, kwargs)

    return small


def _gone(followed: Followed, plan: Plan) -> np.ndarray:
    """Returns which classes of units the plan removes: bool, by class.

    Raises:
      UserError: the program does not allow it.
    """
    units, axes = followed.units, plan.axes()
    kept = [
        (path, axis, along, axes.get(path, {}).get(axis))
        for path, leaf in followed.leaves.items()
        if path not in plan.dropped
        for axis, along in enumerate(leaf.axes)
    ]
    gone = units.marks()
    stays = units.marks()
    for _, _, along, keep in kept:
        left = _or_all(keep, along)
        for bases, stay in zip(units.bases(along), left.tolist(), strict=True):
            (stays if stay else gone)[list(bases)] = True
    # A product goes with any of its parts, so some of these may stay elsewhere.
    gone &= ~stays
    for path, axis, along, keep in kept:
        wanted = _or_all(keep, along)
        wrong = units.removed(along, gone) == wanted
        if wrong.any():
            at = int(np.argmax(wrong))
            why = units.why([along[at]]) or "something else that stays depends on it"
            raise errors.UserError(
                f"position {at} along axis {axis} of {path!r} cannot be "
                f"{'kept' if wanted[at] else 'removed'} as the plan says: {why}"
            )
    return gone


def _or_all(keep: np.ndarray | None, along: np.ndarray) -> np.ndarray:
    return np.ones(len(along), bool) if keep is None else keep


class _Runner:
    """Runs a program that was followed, with some of its units gone."""

    def __init__(self, followed: Followed, gone: np.ndarray) -> None:
        self.followed = followed
        self._gone = gone

    def program(self, weights: Any, args: Any, kwargs: Any) -> Any:
        """Returns the result for small weights."""
        body = self.followed.body
        given = dict(
            zip(
                [p for p in self.followed.leaves if p not in self._dropped()],
                jax.tree.leaves(weights),
                strict=True,
            )
        )
        rest = [
            x
            for x in jax.tree.leaves((args, kwargs))
            if isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
        ]
        ins = [given.get(path) for path in self.followed.leaves] + rest
        made = self.solid(body, self.run(body, ins))
        return jax.tree.unflatten(self.followed.out_tree, made)

    def _dropped(self) -> set[str]:
        return {path for path, leaf in self.followed.leaves.items() if leaf.zero}

    def sizes(self, var: Any, held: Held) -> Sizes:
        """Returns the sizes of a variable."""
        shape = tuple(getattr(var.aval, "shape", ()))
        if isinstance(var, core.Literal):
            return Sizes(shape, (None,) * len(shape))
        return Sizes(shape, tuple(self._keep(axis) for axis in held.axes))

    def _keep(self, axis: Any) -> np.ndarray | None:
        if axis is None:
            return None
        removed = self.followed.units.removed(axis, self._gone)
        return np.flatnonzero(~removed) if removed.any() else None

    def run(self, body: Body, ins: Sequence[Any]) -> list[Any]:
        """Returns the outputs of a body; None for what is 0 everywhere."""
        jaxpr, consts = body.block.jaxpr, body.block.consts
        env: dict[Any, Any] = dict(zip(jaxpr.invars, ins, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = take(value, self.sizes(var, body.held[var]).keep)

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            given = [read(atom) for atom in eqn.invars]
            with scoped(eqn):
                outs = self._equation(body, i, eqn, given)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, body: Body, i: int, eqn: Any, given: list[Any]) -> list[Any]:
        held = [body.held[v] for v in eqn.outvars]
        if held and all(x.zero for x in held):
            return [None] * len(held)
        ins = [self.sizes(v, body.read(v)) for v in eqn.invars]
        outs = [self.sizes(v, x) for v, x in zip(eqn.outvars, held, strict=True)]
        missing = any(x is None for x in given)
        if eqn.primitive.name in ("add", "add_any", "sub") and missing:
            left, right = given
            if right is None and ins[0].small == outs[0].small:
                return [left]
            if left is None and ins[1].small == outs[0].small:
                return [right if eqn.primitive.name != "sub" else -right]
        whole = all(k is None for s in (*ins, *outs) for k in s.keep)
        inside = body.bodies.get(i)
        if inside and (not whole or missing or eqn.primitive.name in _OPEN):
            made = _ENTER[eqn.primitive.name](self, body, eqn, given, inside, outs)
        else:
            given = self.written(body, eqn.invars, given)
            how = RESIZE.get(eqn.primitive.name)
            made = bind(eqn, given) if whole or not how else how(eqn, given, ins, outs)
        return [None if x.zero else y for x, y in zip(held, made, strict=True)]

    def enter(self, body: Body, given: Sequence[Any]) -> list[Any]:
        """Returns the outputs of an inner body, as arrays."""
        block = body.block
        ins = []
        for v, x in zip(block.jaxpr.invars, given, strict=True):
            held = body.held[v]
            if x is None and not held.zero:
                x = zeros(v, self.sizes(v, held))
            ins.append(None if held.zero else x)
        return self.run(body, ins)

    def also(self, block: Block, ins: Sequence[Held], place: Place) -> Body:
        """Returns a further body followed, from units of this program."""
        return Walker(self.followed.units).walk(block, ins, place)[0]

    def solid(self, body: Body, outs: Sequence[Any]) -> list[Any]:
        """Returns the outputs of an inner body with zeros written out."""
        return self.written(body, body.block.jaxpr.outvars, outs)

    def written(self, body: Body, atoms: Sequence[Any], values: Any) -> list[Any]:
        """Returns the values of variables with zeros written out."""
        return [
            zeros(v, self.sizes(v, body.read(v))) if x is None else x
            for v, x in zip(atoms, values, strict=True)
        ]


_OPEN = ("jit", "closed_call", "eval_jaxpr")
_ENTER = {
    **dict.fromkeys(_OPEN, control.call),
    "remat2": control.remat,
    "scan": control.scan,
    "while": control.while_,
    "cond": control.cond,
    "custom_jvp_call": custom_jvp,
    "custom_vjp_call": custom_vjp,
}
