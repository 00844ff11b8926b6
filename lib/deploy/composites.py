"""Programs whose roundings are StableHLO composites, as LiteRT's converter reads them.

A composite `quant.fake_quant` around a value carries the type, the scales and the zero
points that it is to have in the file, so that these are the ones that were trained.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, program, representations, tree
from lib.program import results
from lib.program.integer import coded
from lib.program.integer.carried import carried
from lib.program.interpreter import execute
from lib.program.sites import CONTRACTIONS, SIDES, read


class Codes(NamedTuple):
    """The grid of a value: `x ~ (code - zero_point) * scale`.

    Attributes:
      scale: float64, one entry, or one for each index along `axis`.
      zero_point: int64, of the codes -128 to 127; 0 where they are symmetric.
      axis: None for one scale in all.
      narrow: 4-bit codes.
      symmetric: whether the smallest code is left out.
      grid: of an activation, as `numerics.Grid`; None of a weight, which is on it.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None
    narrow: bool
    symmetric: bool
    grid: tuple[float, ...] | None = None


class Composed(NamedTuple):
    """A program that is going to be written.

    Attributes:
      run: x -> what `fake_quantize` computes, its roundings as composites; runs in
        JAX too.
      results: {site: (smallest, largest)} of the results that are rounded.
    """

    run: Callable[[Any], Any]
    results: dict[str, Any]


def composed(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: jax.ShapeDtypeStruct,
    *,
    ranges: program.Ranges,
    rules: Sequence[program.Rule],
    points: str = "inputs",
    batches: Sequence[Any] = (),
) -> Composed:
    """Returns `fake_quantize(f, ranges, rules)` of frozen weights, as composites.

    Weights that meet a rounded activation are composites too, with their own scales.
    With `batches`, so are the results of contractions that nothing else rounds, on
    8 bits over what these batches show.

    Raises:
      UserError: as `program.fake_quantize`; or a site is inside a loop, or rules or
        weights are others than integer kernels take.
    """
    flat = {p: representations.of(x) for p, x in tree.flatten(frozen).items()}
    dense = representations.thaw(frozen)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dense)
    # It judges rules and ranges; nothing is computed.
    jax.eval_shape(
        program.fake_quantize(f, ranges, rules, points=points), params, example
    )
    traced = read(f, (params, example), {}, points=points)
    listed = program.coverage(f, rules, points=points)(params, example)
    if not any(row.operands for row in listed):
        raise errors.UserError(
            "LiteRT export: the rules round no activation; export floats instead"
        )
    rows, settings = {row.site: row for row in listed}, dict(rules)
    # Leaves stand in the order of JAX, which sorts the names.
    paths = [
        jax.tree_util.keystr(place, simple=True, separator="/")
        for place, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    arrives = carried(traced, range(len(paths)))
    codes: dict[tuple[str, str], Codes] = {}
    for site in traced.sites:
        row = rows[site.name]
        for side in row.operands:
            given = ranges.get(site.name, {}).get(side)
            codes[site.name, side] = _activation(site, given, settings[row.rule])
        for side, way in arrives.get(site.name, {}).items():
            if row.operands and site.primitive in CONTRACTIONS:
                rep = _stored(flat, paths[way.leaf])
                codes[site.name, side] = _weight(rep, way, site, paths[way.leaf])
    found: dict[str, results.Result] = {}
    bounds = {}
    if batches:
        rounded = {row.site: row.operands for row in listed}
        traced, found = results.with_results(traced, rounded, len(paths))
        bounds = _bounds(f, dense, rounded, points, batches)

    # Outside of any trace, as the file wants numbers.
    after = {name: _grid(ends, symmetric=False) for name, ends in bounds.items()}

    def step(site, lhs, rhs, bind, feed):
        del feed
        left, right = (codes.get((site.name, side)) for side in SIDES)
        if right is not None and right.grid is None and _flattens(site):
            return _flat(site, _composite(lhs, left), rhs, right), None
        return bind(_composite(lhs, left), _composite(rhs, right)), None

    def result(name, out):
        return _composite(out, after[name]), None

    def run(x):
        leaves = [*map(jnp.asarray, jax.tree.leaves(dense)), x]
        whole = traced._replace(leaves=leaves)
        return execute(whole, results.at_results(found, step, result), {})[0]

    return Composed(run, bounds)


def _bounds(f, dense, rounded, points, batches) -> dict[str, Any]:
    """Returns the ranges of the results over batches, which may have any length."""
    shape = jax.ShapeDtypeStruct(batches[0].shape, batches[0].dtype)
    traced = read(f, (dense, shape), {}, points=points)
    weights = len(jax.tree.leaves(dense))
    traced, found = results.with_results(traced, rounded, weights)
    return jax.device_get(results.result_ranges(traced, found, dense, batches))


def _composite(x: jax.Array, codes: Codes | None) -> jax.Array:
    """Returns `x` rounded, a weight as it is, as a composite with its codes."""
    if codes is None:
        return x
    along = {} if codes.axis is None else {"quantization_dimension": codes.axis}

    def decomposition(x, **_):
        if codes.grid is None:
            return x
        return numerics.fake_quant(x, numerics.Grid(*map(jnp.float32, codes.grid)))

    return lax.composite(decomposition, "quant.fake_quant")(
        x,
        dtype="i4" if codes.narrow else "i8",
        narrow_range=codes.symmetric,
        scale=codes.scale,
        zero_point=codes.zero_point,
        **{name: np.int32(axis) for name, axis in along.items()},
    )


def _flattens(site: program.Site) -> bool:
    """Returns whether a weight `rhs` is more than `[in, out]`, as an attention's."""
    if site.primitive != "dot_general" or len(site.rhs.shape) < 3:
        return False
    (left, right), (batch, _) = site.params["dimension_numbers"]
    rank, count = len(site.lhs.shape), len(left)
    last = tuple(left) == tuple(range(rank - count, rank))
    return not batch and last and tuple(right) == tuple(range(count))


def _flat(site: program.Site, x: jax.Array, w: jax.Array, codes: Codes) -> jax.Array:
    """Returns the contraction as one of `[rows, in]` and `[in, out]`.

    LiteRT has integer kernels for these only. A weight's scales are along its last
    axis: repeated for each index of the other free ones.
    """
    count = len(site.params["dimension_numbers"][0][0])
    free = w.shape[count:]
    terms = math.prod(w.shape[:count])
    if codes.axis is not None:
        each = [-1 if count + i == codes.axis else 1 for i in range(len(free))]
        scale = np.broadcast_to(codes.scale.reshape(each), free).ravel()
        codes = codes._replace(
            scale=scale, zero_point=np.zeros(len(scale), int), axis=1
        )
    w = _composite(w.reshape(terms, -1), codes)
    rows = x.shape[: x.ndim - count]
    kept = ("precision", "preferred_element_type")
    out = lax.dot_general(
        x.reshape(-1, terms),
        w,
        (((1,), (0,)), ((), ())),
        **{name: site.params[name] for name in kept},
    )
    return out.reshape((*rows, *free))


def _grid(bounds: Any, *, symmetric: bool) -> Codes:
    """Returns the codes of activations in a range."""
    low, high = (np.asarray(bound) for bound in bounds)
    grid = jax.device_get(numerics.grid(low, high, 8, symmetric=symmetric))
    zero = 0 if symmetric else int(grid.zero_point) - 128
    scale = np.asarray(grid.scale, np.float64).reshape(1)
    numbers = tuple(map(float, grid))
    return Codes(scale, np.array([zero]), None, False, symmetric, numbers)


def _activation(site: program.Site, bounds: Any, settings: Any) -> Codes:
    """Returns the codes of a rounded operand."""
    where = f"LiteRT export: {site.name}"
    if site.around:
        raise errors.UserError(
            f"{where} is inside a {site.around[0]}, expected a program without loops; "
            "exempt the site with a rule of None"
        )
    if not program.is_static(settings):
        raise errors.UserError(
            f"{where} has the range {settings['range']!r}, expected 'static'"
        )
    if settings["bits"] != 8:
        raise errors.UserError(
            f"{where} is rounded to {settings['bits']} bits, expected 8"
        )
    return _grid(bounds, symmetric=settings["symmetric"])


def _stored(
    flat: dict[str, representations.Representation], path: str
) -> representations.Representation:
    rep = flat[path]
    while isinstance(rep, representations.Tied):
        rep = flat[rep.path]
    return rep.values if isinstance(rep, representations.Sparse) else rep


def _weight(
    rep: representations.Representation, way: Any, site: program.Site, path: str
) -> Codes:
    """Returns the grid of a weight where it is contracted."""
    where = f"LiteRT export: {path}, the weight of {site.name},"
    if not isinstance(rep, representations.Quantized):
        raise errors.UserError(
            f"{where} is stored as {type(rep).__name__}, expected Quantized; quantize "
            "it, or exempt the site with a rule of None"
        )
    if rep.zero_point is not None and rep.bits == 8:
        raise errors.UserError(
            f"{where} has an affine grid of 8 bits, expected a symmetric one"
        )
    entries = coded.entries(rep, way)
    varies = [
        axis
        for axis in range(entries.ndim)
        if (entries != entries.take([0], axis)).any()
    ]
    if rep.group or len(varies) > 1:
        raise errors.UserError(
            f"{where} has scales along {len(varies)} axes, expected one scale a "
            "channel; quantize it with granularity 'channel' or 'tensor'"
        )
    axis = varies[0] if varies else None
    first = entries[tuple(slice(None) if i == axis else 0 for i in range(entries.ndim))]
    scale = np.asarray(rep.scale, np.float64).ravel()[np.atleast_1d(first)]
    narrow = rep.bits <= 4 and rep.zero_point is None
    return Codes(scale, np.zeros(scale.shape, np.int64), axis, narrow, True)
