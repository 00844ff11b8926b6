"""Programs that run with factors: two small contractions in place of a large one."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import representations as reps
from lib import tree
from lib.program import products
from lib.program.interpreter import execute
from lib.program.sites import Program, Site, read
from lib.program.uses import Use, uses

# The parts of a product by their names, where a dict of arrays stands for one.
_NAMES = {
    frozenset(kind.__dataclass_fields__): kind
    for kind in (reps.LowRank, reps.Tucker, reps.CP)
}
_KERNEL = tree.compile_pattern(tree.KERNELS)


class Row(NamedTuple):
    """What becomes of one weight that is a product, for a report.

    Attributes:
      path: of the weight.
      sites: names of the contractions that it enters, in program order.
      factored: whether these run factor by factor; else it is multiplied out, once.
      macs: multiply-accumulates of the sites in one run of the program, as they run.
      dense_macs: those of the sites with the weight multiplied out.
      why: why it is multiplied out; empty where it is not.
    """

    path: str
    sites: tuple[str, ...]
    factored: bool
    macs: int
    dense_macs: int
    why: str


def run_factored(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `f` for params in which weights are products of factors.

    A weight that reaches contractions unchanged, and nothing else, runs factor by
    factor where that takes fewer multiply-accumulates; else it is multiplied out once,
    before `f` runs. `factored` lists which and why. The result agrees with that of
    `f` to rounding. It passes through jit, grad (of the factors), vmap, remat and
    scan, and keeps the scopes of `f`.

    Args:
      f: pure, `f(params, *args, **kwargs)`.

    Returns:
      a function of the same arguments. A leaf of its params may be a representation:
      `LowRank`, `Tucker`, `CP`, or a `Sum`, of arrays, or a dict of a kernel's factors
      named as their fields, as `{"u": ..., "v": ...}`. Anything else is made dense by
      `representations.materialize`, which wants arrays that are not traced.
    """

    @functools.wraps(f)
    def run(params, *args, **kwargs):
        whole, flat = _flatten(params)
        if not _products(flat):
            return f(tree.replace(whole, flat), *args, **kwargs)
        plan = _plan(f, whole, flat, args, kwargs)
        values = list(plan.program.leaves)
        for i, path in plan.places.items():
            w, here = flat[path], plan.program.leaves[i]
            # Where the factors run, nobody reads this.
            unread = plan.rows[path].factored
            values[i] = (
                jnp.zeros(here.shape, here.dtype) if unread else products.dense(w)
            )

        def step(site: Site, lhs, rhs, bind, feed):
            del feed
            if site.name not in plan.swaps:
                return bind(lhs, rhs), None
            path, side = plan.swaps[site.name]
            x = lhs if side == "rhs" else rhs
            return products.contract(flat[path], x, site, side), None

        return execute(plan.program._replace(leaves=values), step, {})[0]

    return run


def factored(f: Callable[..., Any]) -> Callable[..., list[Row]]:
    """Returns a function of the arguments of `run_factored(f)` that lists its products.

    Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """

    def listing(params, *args, **kwargs):
        return list(_plan(f, *_flatten(params), args, kwargs).rows.values())

    return listing


def keep_factors(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function `(frozen, *args) -> params` for `run_factored(f)`.

    Of a frozen tree only those products stay that `f` runs factor by factor; all else
    is dense, as `representations.thaw` has it.
    """

    def keep(frozen, *args, **kwargs):
        whole, flat = _flatten(frozen)
        rows = _plan(f, whole, flat, args, kwargs).rows if _products(flat) else {}
        kept = {path: flat[path] for path, row in rows.items() if row.factored}
        return tree.replace(reps.thaw(frozen), kept)

    return keep


class _Plan(NamedTuple):
    """What `run_factored` does with a function at given arguments.

    Attributes:
      program: traced with abstract weights in place of the products.
      places: number of an abstract leaf -> path of its product.
      rows: path -> what becomes of the product there.
      swaps: name of a site to run factor by factor -> (path, side) of the weight.
    """

    program: Program
    places: dict[int, str]
    rows: dict[str, Row]
    swaps: dict[str, tuple[str, str]]


def _plan(f, whole: Any, flat: Mapping[str, Any], args, kwargs) -> _Plan:
    shapes = {p: jax.eval_shape(products.dense, x) for p, x in _products(flat).items()}
    program = read(f, (tree.replace(whole, {**flat, **shapes}), *args), kwargs)
    paths = {id(shape): path for path, shape in shapes.items()}
    places = {i: paths[id(x)] for i, x in enumerate(program.leaves) if id(x) in paths}
    rows, swaps = {}, {}
    found = uses(program, list(places))
    for i, path in places.items():
        others = {id(u.site) for k in found if k != i for u in found[k] if u.site}
        row = rows[path] = _row(path, flat[path], found[i], others)
        if row.factored:
            swaps.update((u.site.name, (path, u.side)) for u in found[i])
    return _Plan(program, places, rows, swaps)


def _row(path: str, rep: products.Product, found: list[Use], others: set[int]) -> Row:
    """Decides about one product, given its uses and the sites of the other products."""
    sites = [use.site for use in found if use.site is not None]
    names = tuple(dict.fromkeys(site.name for site in sites))
    dense = sum({site.name: site.macs for site in sites}.values())

    def why() -> str:
        if not found:
            return "nothing uses it"
        for use in found:
            if use.site is None:
                return f"{use.by} uses it, which is no contraction"
            if id(use.site) in others or len(names) < len(sites):
                return f"both operands of {use.site.name} are products"
            reason = products.why_not(rep, use.site, use.side)
            if reason:
                return reason
        return ""

    reason, macs = why(), dense
    if not reason:
        macs = sum(products.macs(rep, u.site, u.side) * u.site.repeats for u in found)
        if macs >= dense:
            reason = f"its factors take {macs:,} multiply-accumulates of {dense:,}"
            macs = dense
    return Row(path, names, not reason, macs, dense, reason)


def _flatten(params: Any) -> tuple[Any, dict[str, Any]]:
    """Returns params as a tree of leaves, and {path: array or product of arrays}."""
    whole = _gather(params)
    flat = tree.flatten(whole)

    def leaf(x: Any) -> Any:
        if isinstance(x, reps.Tied):
            return leaf(flat[x.path])
        return _product(x) if isinstance(x, reps.Representation) else x

    return whole, {path: leaf(x) for path, x in flat.items()}


def _products(flat: Mapping[str, Any]) -> dict[str, products.Product]:
    return {p: x for p, x in flat.items() if isinstance(x, products.Product)}


def _gather(node: Any, path: str = "") -> Any:
    """Returns the tree with dicts of a kernel's factors as products."""
    if not isinstance(node, Mapping):
        return node
    kind = _NAMES.get(frozenset(node))
    if kind and _KERNEL.search(path):
        return kind(**node)
    return {
        key: _gather(child, f"{path}/{key}" if path else key)
        for key, child in node.items()
    }


def _product(rep: Any) -> Any:
    """Returns a product with plain arrays for parts, or a dense array."""
    match rep:
        case reps.LowRank() | reps.Tucker() | reps.CP():
            parts = (getattr(rep, name) for name in rep.__dataclass_fields__)
            return type(rep)(*(_dense(_product(part)) for part in parts))
        case reps.Sum(base, extra):
            return reps.Sum(_product(base), _product(extra))
        case reps.Dense(values):
            return _product(values)
        case jax.ShapeDtypeStruct():
            return rep
    if isinstance(rep, reps.Representation):
        rep = reps.materialize(rep)
    return jnp.asarray(rep)


def _dense(part: Any) -> Any:
    """Returns a part of a product multiplied out, or the shape it would have."""
    abstract = [isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(part)]
    return (
        jax.eval_shape(products.dense, part) if any(abstract) else products.dense(part)
    )
