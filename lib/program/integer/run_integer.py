"""Programs with integer contractions where both operands are on integer grids.

`run_integer(f, ranges, rules)` computes what `fake_quantize(f, ranges, rules)` does of
the dense weights, from their codes: int8 x int8 -> int32, the zero points and scales
outside (Jacob et al. 2018, arXiv 1712.05877, section 2). It reads the fake-quantized
program itself: an operand that comes out of a `fake_quant` equation, or is a weight
stored as `Quantized`, is on a grid.

How far both agree, one contraction with the same inputs: with K terms a and b in a sum
and u = 2**-24, by `(K + 6) u sum|a b|` in float32, which is what the float sum itself
may lose; and to the last bit where products and sums are exact in float32, as with
scales that are powers of two and sums of codes below 2**24. Behind that, an activation
on the edge between two codes may go either way.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lib import errors, numerics, tree
from lib import representations as reps
from lib.program.calibrate import Ranges
from lib.program.fake_quantize import Rule, Settings, coverage, fake_quantize
from lib.program.integer import coded, fixed_point, products
from lib.program.integer.carried import Carried, carried
from lib.program.integer.roundings import ROUNDING, with_roundings
from lib.program.interpreter import execute
from lib.program.sites import CONTRACTIONS, SIDES, Program, Site, read


class IntegerRow(NamedTuple):
    """What becomes of one contraction, for a report.

    Attributes:
      site: its name, or that of a part of the program that was not entered.
      primitive: what it is.
      macs: multiply-accumulates (`Site.macs`); 0 for a part that was not entered.
      integer: whether it is computed in integers.
      why: why it stays in float; empty where it does not.
    """

    site: str
    primitive: str
    macs: int
    integer: bool
    why: str


def _exact(acc: jax.Array, scale: jax.Array, spare: int) -> jax.Array:
    del spare
    return acc.astype(jnp.float32) * scale


# How sums of codes are multiplied by their scale: (acc, scale, spare bits) -> float32.
REQUANTIZE = {"float": _exact, "fixed": fixed_point.rescale}


def run_integer(
    f: Callable[..., Any],
    ranges: Ranges,
    rules: Sequence[Rule],
    *,
    points: str = "inputs",
    requantize: str = "float",
) -> Callable[..., Any]:
    """Returns `fake_quantize(f, ranges, rules)` for weights that are codes.

    A contraction both operands of which are on integer grids is one of int8, with
    int32 sums. All else is computed as `fake_quantize` does; `integers` lists which
    and why. It passes through jit, vmap, remat, scan and `jax.export`.

    Args:
      f: pure, `f(params, *args, **kwargs)`.
      ranges: as for `fake_quantize`.
      rules: as for `fake_quantize`.
      points: as for `fake_quantize`; a rounded addition stays one of floats.
      requantize: "float" multiplies the sums by their scale in float32; "fixed" in
        int32 alone, by a multiplier and a shift (`fixed_point.rescale`), each result
        within one step of a sum, `scale * 2**-spare`, of the exact product. `spare` is
        what int32 has left above the largest sum that the codes can make.

    Returns:
      a function of `(frozen, *args, **kwargs)`: as `f`, but leaves of its first
      argument may be `Quantized`, their codes packed or not, as `coded.integer_params`
      returns them; other leaves are arrays.

    Raises:
      UserError: when called, as `fake_quantize`.
    """
    apply = errors.lookup(REQUANTIZE, requantize, "requantization")

    @functools.wraps(f)
    def run(frozen, *args, **kwargs):
        frozen = _arrays(frozen)
        plan = _plan(f, ranges, rules, points, frozen, args, kwargs)
        values = list(plan.program.leaves)
        for i, rep in plan.coded.items():
            values[i] = coded.dense(rep)
        fixed = {key: coded.operand(w) for key, w in plan.weights.items()}
        feeds: dict[str, dict[str, Any]] = {}
        for (name, side), w in plan.weights.items():
            if any(w.way.sliced):
                site = plan.integer[name]
                feeds.setdefault(name, {})[side] = _fed(fixed[name, side], w.way, site)
        rounded: dict[int, tuple[jax.Array, products.Operand]] = {}

        def step(site, *given):
            *operands, bind, feed = given
            if site.primitive == ROUNDING:
                out = numerics.fake_quant_p.bind(*operands, **site.params)
                # `out` is kept, so that its id stays its own.
                rounded[id(out)] = out, operands
                return out, None
            if site.name not in plan.integer:
                return bind(*operands), None

            def found(side: str, value: jax.Array) -> products.Operand:
                if (site.name, side) in plan.weights:
                    return (feed or {}).get(side) or fixed[site.name, side]
                _, (x, *grid) = rounded[id(value)]
                whole = plan.symmetric[site.name]
                return coded.activation(x, numerics.Grid(*grid), site, side, whole)

            pair = (found(s, x) for s, x in zip(SIDES, operands, strict=True))
            spare = plan.spare[site.name]
            out = products.contract(
                site, *pair, lambda acc, scale: apply(acc, scale, spare)
            )
            return out.astype(site.out.dtype), None

        program = plan.program._replace(leaves=values)
        return execute(program, step, feeds)[0]

    return run


def integers(
    f: Callable[..., Any],
    ranges: Ranges,
    rules: Sequence[Rule],
    *,
    points: str = "inputs",
) -> Callable[..., list[IntegerRow]]:
    """Returns a function of the arguments of `run_integer(...)` that lists its sites.

    One row for each contraction in program order, then one for each part that was not
    entered. Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """

    def listing(frozen, *args, **kwargs):
        plan = _plan(f, ranges, rules, points, frozen, args, kwargs)
        rows = [
            IntegerRow(s.name, s.primitive, s.macs, not why, why)
            for s, why in zip(plan.program.sites, plan.whys, strict=True)
        ]
        return rows + [
            IntegerRow(part.name, part.primitive, 0, False, part.why)
            for part in plan.program.missed
        ]

    return listing


def integer_contractions(f: Callable[..., Any], *args: Any) -> tuple[int, int]:
    """Returns how many contractions of traced `f(*args)` are integer, and how many not.

    Each counts once, also inside a scan. Integer: both operands int8 or uint8.
    """

    def count(jaxpr: core.Jaxpr) -> tuple[int, int]:
        whole = floats = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in CONTRACTIONS:
                narrow = all(v.aval.dtype in (jnp.int8, jnp.uint8) for v in eqn.invars)
                whole, floats = whole + narrow, floats + (not narrow)
            for body in core.jaxprs_in_params(eqn.params):
                inner = count(body)
                whole, floats = whole + inner[0], floats + inner[1]
        return whole, floats

    return count(jax.make_jaxpr(f)(*args).jaxpr)


class _Plan(NamedTuple):
    """What `run_integer` does with a function at given arguments.

    Attributes:
      program: the fake-quantized one, traced with abstract weights for the coded ones,
        its roundings among its steps.
      coded: number of a leaf -> its representation.
      integer: name -> site, of those that run in integers.
      weights: (site, side) -> the weight there.
      symmetric: site -> whether its activations have no zero point.
      spare: site -> bits of int32 beyond its largest sum.
      whys: why each site of the program stays in float, or "".
    """

    program: Program
    coded: dict[int, reps.Quantized]
    integer: dict[str, Site]
    weights: dict[tuple[str, str], coded.Weight]
    symmetric: dict[str, bool]
    spare: dict[str, int]
    whys: list[str]


def _plan(f, ranges, rules, points, frozen, args, kwargs) -> _Plan:
    rules = [(pattern, _still(settings)) for pattern, settings in rules]
    flat = tree.flatten(frozen)
    kept = {p: x for p, x in flat.items() if isinstance(x, reps.Quantized)}
    shapes = {p: coded.abstract(x) for p, x in kept.items()}
    params = tree.replace(frozen, shapes)
    rounded = fake_quantize(f, ranges, rules, points=points)
    program = read(rounded, (params, *args), kwargs)
    paths = {id(shape): path for path, shape in shapes.items()}
    leaves = {
        i: kept[paths[id(x)]] for i, x in enumerate(program.leaves) if id(x) in paths
    }
    settings = dict(rules)
    listed = coverage(f, rules, points=points)(params, *args, **kwargs)
    rows = {row.site: row for row in listed}
    arrives = carried(program, list(leaves))
    block, roundings = with_roundings(program.block)
    plan = _Plan(program._replace(block=block), leaves, {}, {}, {}, {}, [])
    for site in program.sites:
        symmetric = bool((settings.get(rows[site.name].rule) or {}).get("symmetric"))
        largest, why = [], ""
        found: dict[str, coded.Weight] = {}
        for side, shape in zip(SIDES, roundings[site.name], strict=True):
            way = arrives.get(site.name, {}).get(side)
            if shape is not None:
                largest.append(127 if symmetric else 255)
                why = why or coded.why_not_activation(site, side, shape)
            elif way is not None:
                weight = coded.weight(leaves[way.leaf], way, site, side)
                if isinstance(weight, str):
                    why = why or weight
                else:
                    found[side] = weight
                    largest.append(weight.largest)
            elif side in site.activations:
                why = why or rows[site.name].why or f"its {side} is not rounded"
            else:
                why = why or f"its {side} is no weight that is stored as codes"
        if not why and len(found) == 2:
            why = "both operands are weights"
        why = why or products.why_not(site, largest)
        plan.whys.append(why)
        if not why:
            plan.integer[site.name] = site
            plan.symmetric[site.name] = symmetric
            plan.weights.update({(site.name, s): w for s, w in found.items()})
            terms = products.contracted_length(site)
            plan.spare[site.name] = 31 - (terms * largest[0] * largest[1]).bit_length()
    return plan


def _still(settings: Settings | None) -> Settings | None:
    """Returns a rule's settings without what only says how a range is trained."""
    if settings is None:
        return None
    return {key: value for key, value in settings.items() if key != "learn"}


def _arrays(frozen: Any) -> Any:
    """Returns the params with NumPy's arrays as JAX's, each made once.

    Every conversion is one more constant of a program that holds the weights.
    """
    known: dict[int, jax.Array] = {}

    def convert(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        return known.setdefault(id(x), jnp.asarray(x))

    return jax.tree.map(convert, frozen)


def _fed(operand: Any, way: Carried, site: Site) -> Any:
    """Returns a sliced weight with one leading axis for each scan around its site."""

    def spread(x: jax.Array) -> jax.Array:
        rest = x.shape[sum(way.sliced) :]
        given = iter(x.shape)
        ones = [next(given) if sliced else 1 for sliced in way.sliced]
        return jnp.broadcast_to(x.reshape((*ones, *rest)), (*site.scans, *rest))

    return jax.tree.map(spread, operand)
