"""Where the activations of a program are rounded: named policies.

What a runtime computes in integers depends on more than the contractions: a residual
addition stays in integers only if both of its operands are rounded as well. Which
additions are residual is found in the traced program, not by the name of a layer. And
the result of a convolution, or of such an addition, is an integer only if it is rounded
too: what no contraction reads, but a mean over its places, is rounded for that mean.

A tensor that is rounded for two readers should be rounded once: with points that look
at more than contractions, operands that are one tensor, or parts of one (a strided
shortcut), share a range.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from lib import errors
from lib.program import flow

CONTRACTIONS = ("dot_general", "conv_general_dilated")
MEANS = ("reduce_sum", "reduce_window_sum")  # what a mean divides
# policy -> the primitives whose operands are rounded, besides those of contractions:
# `add` where it is residual, the sums where they are of what came out of integers.
POLICIES: Mapping[str, tuple[str, ...]] = {
    "inputs": (),
    "adds": ("add",),
    "means": ("add", *MEANS),
}

Path = tuple[int, ...]  # equation, body, equation, ... down to an equation

# What selects elements, or sets constants beside them.
_PARTS = ("slice", "pad")
# Equations that keep every element, perhaps elsewhere.
_MOVES = ("reshape", "transpose", "squeeze", "broadcast_in_dim", "expand_dims")
_SAME = (
    "convert_element_type",
    "copy",
    "copy_p",
    "fake_quant",
    "neg",
    "optimization_barrier",
    "sharding_constraint",
    "stop_gradient",
)
_AFFINE = ("add", "sub", "mul", "div", "add_any")
_ELEMENTS = (
    "abs",
    "clamp",
    "cos",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "floor",
    "integer_pow",
    "log",
    "log1p",
    "log2",
    "logistic",
    "max",
    "min",
    "one_minus_square",
    "pow",
    "round",
    "rsqrt",
    "select_n",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tanh",
)


# Equations whose elements are their operands': a bound of them, the largest of some. A
# gather is what slices are where the batch has no fixed length.
_BOUNDS = ("clamp", "max", "min")
_LARGEST = ("gather", "reduce_max", "reduce_window_max")


class Line(NamedTuple):
    """What is known of a value that depends on data.

    Attributes:
      of: number of the contraction that it is an affine function of, element by
        element, with coefficients that repeat along some axis; None if of none.
      roots: numbers of the values that it is a function of, element by element.
      source: number of the value that it is, or is a part of.
      repeats: it is the same along some axis, as the statistics of a batch are.
      whole: a runtime of integers may hold it as one: it is an affine function of a
        contraction's result, a residual sum, or those between bounds.
    """

    of: int | None
    roots: frozenset[int]
    source: int
    repeats: bool = False
    whole: bool = False


Held = Line | None  # None: it depends on no data


def check(points: str) -> None:
    """Raises a `UserError` unless `points` is the name of a policy."""
    errors.lookup(POLICIES, points, "policy of points")


def operands(body: Any, marks: flow.Marks, points: str) -> dict[Path, tuple]:
    """Returns where the operations stand whose operands a policy rounds.

    Those are contractions, residual additions and means; for the points "inputs",
    which need no search, nothing is returned.

    A residual addition adds two activations of one shape, of which at least one is an
    affine function of a contraction's result (a bias, batch norm, dropout) and the
    other is not made of that same result element by element. So the sums in GELU,
    softmax or a gate are none.

    A mean sums up, along any axes, what came out of integers: a contraction's result
    behind its bias, batch norm and relu, or a residual sum. Nothing else may read that
    but contractions and residual additions: a sum of values that are combined with it
    again is a statistic, as in batch norm while it trains.

    Args:
      body: a jaxpr, closed or open.
      marks: which of its inputs are data.
      points: a policy.

    Returns:
      For each operation the numbers of the values that its operands are or are parts
      of; None for weights.
    """
    if not POLICIES[points]:
        return {}
    finder = _Finder()
    finder.walk(body, marks, [finder.fresh() if mark else None for mark in marks], ())
    return {
        path: sources
        for path, (name, sources) in finder.found.items()
        if name in CONTRACTIONS
        or name in POLICIES[points]
        and (name not in MEANS or sources[0] not in finder.combined)
    }


class _Finder:
    """Follows affine functions of contractions through a program, once, in order.

    Attributes:
      found: path -> the operation's name and the sources of its operands.
      combined: sources that operations of other names read.
    """

    def __init__(self) -> None:
        self.found: dict[Path, tuple[str, tuple[int | None, ...]]] = {}
        self.combined: set[int] = set()
        self._numbers = itertools.count()

    def fresh(self) -> Line:
        """Returns the line of a value of which nothing is known."""
        number = next(self._numbers)
        return Line(None, frozenset([number]), number)

    def walk(
        self, body: Any, marks: flow.Marks, lines: Sequence[Held], path: Path
    ) -> list[Held]:
        """Walks a body whose inputs have these lines; returns those of its outputs."""
        jaxpr, _ = flow.opened(body)
        env = flow.Environment(jaxpr, marks)
        held: dict[core.Var, Held] = dict(zip(jaxpr.invars, lines, strict=True))

        def read(atoms: Sequence[Any]) -> list[Held]:
            marked = zip(atoms, env.read(atoms), strict=True)
            return [held[atom] if mark else None for atom, mark in marked]

        for i, eqn in enumerate(jaxpr.eqns):
            given, here = read(eqn.invars), (*path, i)
            inside = flow.bodies(eqn, env.read(eqn.invars))
            if eqn.primitive.name in flow.CALLS:
                ((inner, inner_marks),) = inside
                outs = self.walk(inner, inner_marks, given, (*here, 0))
            else:
                for k, (inner, inner_marks) in enumerate(inside):
                    fresh = [self.fresh() if mark else None for mark in inner_marks]
                    self.walk(inner, inner_marks, fresh, (*here, k))
                outs = self._equation(eqn, given, here)
            held.update(zip(eqn.outvars, outs, strict=True))
            env.step(eqn)
        return read(jaxpr.outvars)

    def _equation(
        self, eqn: core.JaxprEqn, given: list[Held], here: Path
    ) -> list[Held]:
        """Returns the lines of an equation's outputs, and notes it if it is one."""
        name, lines = eqn.primitive.name, [line for line in given if line]
        fresh = [self.fresh() for _ in eqn.outvars]
        residual = name == "add" and _residual(eqn, given)
        mean = name in MEANS and bool(lines) and lines[0].whole
        if name in CONTRACTIONS or residual or mean:
            sources = tuple(line and line.source for line in given)
            self.found[here] = name, sources
        elif name not in (*_PARTS, *_MOVES):
            self.combined.update(line.source for line in lines)
        if name in CONTRACTIONS:
            return [fresh[0]._replace(of=fresh[0].source, whole=True)]
        if name in _PARTS and given[0] and not any(given[1:]):
            kept = given[0]
            return [fresh[0]._replace(source=kept.source, whole=kept.whole)]
        if name in _LARGEST and given[0] and not any(given[1:]):
            return [fresh[0]._replace(whole=given[0].whole)]
        if name not in (*_MOVES, *_SAME, *_AFFINE, *_ELEMENTS) or not lines:
            return fresh
        roots = frozenset().union(*(line.roots for line in lines))
        repeats = all(line.repeats for line in lines) or _repeated(eqn)
        moved = name in _MOVES and given[0]
        of = _affine(eqn, given)
        # Of a bound that is data, not of a number, both have to be.
        whole = name in (*_BOUNDS, *_MOVES, *_SAME) and all(
            line.whole for line in lines
        )
        return [
            Line(
                of,
                roots,
                given[0].source if moved else line.source,
                repeats,
                whole or residual or of is not None,
            )
            for line in fresh
        ]


def _residual(eqn: core.JaxprEqn, given: list[Held]) -> bool:
    """Returns whether an `add` is residual, given the lines of its operands."""
    left, right = (v.aval for v in eqn.invars)
    a, b = given
    if a is None or b is None or a.repeats or b.repeats or left.shape != right.shape:
        return False
    if not jnp.issubdtype(left.dtype, jnp.floating):
        return False
    return any(
        one.of is not None and one.of not in other.roots
        for one, other in ((a, b), (b, a))
    )


def _repeated(eqn: core.JaxprEqn) -> bool:
    """Returns whether an equation repeats its operand along an axis."""
    if eqn.primitive.name != "broadcast_in_dim":
        return False
    shape, before = eqn.outvars[0].aval.shape, eqn.invars[0].aval.shape
    kept = dict(zip(eqn.params["broadcast_dimensions"], before, strict=True))
    return any(kept.get(axis, 1) != n for axis, n in enumerate(shape))


def _affine(eqn: core.JaxprEqn, given: list[Held]) -> int | None:
    """Returns the contraction that a result is an affine function of, if of one."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    if name in (*_MOVES, *_SAME):
        return None if _repeated(eqn) else given[0] and given[0].of
    if name not in (*_AFFINE, "select_n"):
        return None
    # What has a smaller shape is repeated by the equation itself.
    varies = [
        line is not None and not line.repeats and v.aval.shape == shape
        for v, line in zip(eqn.invars, given, strict=True)
    ]
    if name == "select_n":  # of dropout: which one is no function of the values
        which, *cases = given
        full = [line for line, v in zip(cases, varies[1:], strict=True) if v]
        alike = len(full) == 1 and full[0].of is not None
        apart = which is None or full and full[0].of not in which.roots
        return full[0].of if alike and apart else None
    if varies.count(True) != 1 or (name == "div" and varies[1]):
        return None
    return given[varies.index(True)].of
