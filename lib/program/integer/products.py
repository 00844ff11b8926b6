"""Contractions of codes: int8 x int8 -> int32, zero points and scales outside.

`sum_k (a_k - za) (b_k - zb) = sum a b - zb sum a - za sum b + K za zb`
(Jacob et al. 2018, arXiv 1712.05877, eq. 7). All of it is exact modulo 2**32, and
`why_not` sees to it that the result fits. A convolution's padding holds the zero
point, which stands for 0.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lib.program.meets import axes
from lib.program.sites import SIDES, Site

_LIMIT = 2**31 - 1
# (int32 sums, float32 scale that broadcasts against them) -> float32
Rescale = Callable[[jax.Array, jax.Array], jax.Array]


class Operand(NamedTuple):
    """An operand on an integer grid: `(codes - zero) * scale`.

    Attributes:
      codes: int8, of the operand's shape.
      zero: int32 as `scale`, or None where it is 0 everywhere.
      scale: float32. Of a dot_general `[*batch, groups, *free]`, each axis as long as
        the operand's or 1; `groups` divide the contracted axes, flattened. Of a
        convolution `[batch]` or `[out channels]`, or `[1]`.
      sums: int32 sums of the codes over each group, laid out as `scale`, where they
        are known beforehand; else None.
    """

    codes: jax.Array
    zero: jax.Array | None
    scale: jax.Array
    sums: jax.Array | None = None


def sides(site: Site, side: str) -> tuple[tuple[int, ...], ...]:
    """Returns the batch, contracted and free axes of an operand.

    A convolution's image has its batch for free axis, and all others are contracted.
    """
    dims = site.params["dimension_numbers"]
    if site.primitive == "conv_general_dilated" and side == "lhs":
        batch, *rest = dims.lhs_spec
        return (), tuple(rest), (batch,)
    contracted, free = axes(site, side)
    if site.primitive == "conv_general_dilated":
        return (), contracted, free
    return tuple(dims[1][SIDES.index(side)]), contracted, free


def why_not(site: Site, largest: Sequence[int]) -> str:
    """Returns why codes cannot be contracted at a site; empty if they can.

    Args:
      site: a contraction.
      largest: of each side, the largest magnitude of `code - zero`.
    """
    if not jnp.issubdtype(site.out.dtype, jnp.floating):
        return f"its result is {site.out.dtype}"
    convolves = site.primitive == "conv_general_dilated"
    if convolves and site.params["batch_group_count"] > 1:
        return "its batch is in groups, as in a derivative"
    terms = contracted_length(site)
    if terms * math.prod(largest) > _LIMIT:
        return f"sums of {terms:,} products can exceed int32"
    return ""


def contracted_length(site: Site) -> int:
    """Returns how many products each of a site's sums has."""
    _, contracted, _ = sides(site, "rhs")
    return math.prod(site.rhs.shape[axis] for axis in contracted)


def contract(site: Site, lhs: Operand, rhs: Operand, rescale: Rescale) -> jax.Array:
    """Returns float32: what the site computes of `lhs` and `rhs`.

    Args:
      site: a contraction that `why_not` has nothing against.
      lhs: its first operand.
      rhs: its second operand; only one of both has more than one group.
      rescale: turns the sums of codes into real numbers.
    """
    if site.primitive == "conv_general_dilated":
        return _convolve(site, lhs, rhs, rescale)
    return _dot(site, lhs, rhs, rescale)


def _corrected(acc, lhs: Operand, rhs: Operand, sums, spread, terms: int):
    """Returns the sums of codes without what their zero points add.

    Args:
      acc: int32 sums of products of codes.
      lhs: with its zero as `spread` takes it.
      rhs: likewise.
      sums: (side) -> int32 sums of that side's codes, broadcasting against `acc`.
      spread: (side, zero or scale) -> the same, broadcasting against `acc`.
      terms: products in each sum.
    """
    zeros = [
        None if x.zero is None else spread(side, x.zero)
        for side, x in zip(SIDES, (lhs, rhs), strict=True)
    ]
    if zeros[1] is not None:
        acc = acc - sums("lhs") * zeros[1]
    if zeros[0] is not None:
        acc = acc - zeros[0] * sums("rhs")
    if None not in zeros:
        acc = acc + terms * zeros[0] * zeros[1]
    return acc


def _dot(site: Site, lhs: Operand, rhs: Operand, rescale: Rescale) -> jax.Array:
    where = {side: sides(site, side) for side in SIDES}
    batch = len(where["lhs"][0])
    groups = max(lhs.scale.shape[batch], rhs.scale.shape[batch])
    terms = contracted_length(site)
    given = {"lhs": lhs, "rhs": rhs}
    codes = {side: x.codes for side, x in given.items()}
    if groups > 1:  # a group is one more batch axis
        codes = {s: _grouped(codes[s], where[s], groups) for s in SIDES}
        last = {s: codes[s].ndim - 1 for s in SIDES}
        where = {
            s: (tuple(range(batch + 1)), (last[s],), tuple(range(batch + 1, last[s])))
            for s in SIDES
        }
    free = {side: len(where[side][2]) for side in SIDES}

    def place(side: str, x: jax.Array, leading: Sequence[int]) -> jax.Array:
        """Adds the other operand's free axes to `[*leading, *free]`."""
        own = x.shape[x.ndim - free[side] :]
        before, after = ((), (1,) * free["rhs"])
        if side == "rhs":
            before, after = (1,) * free["lhs"], ()
        return x.reshape((*leading, *before, *own, *after))

    def spread(side: str, x: jax.Array) -> jax.Array:
        lead = x.shape[: batch + 1] if groups > 1 else x.shape[:batch]
        return place(side, x, lead)

    def sums(side: str) -> jax.Array:
        if given[side].sums is not None:
            return spread(side, given[side].sums)
        x = codes[side].transpose([axis for group in where[side] for axis in group])
        start = len(where[side][0])
        over = tuple(range(start, start + len(where[side][1])))
        x = jnp.sum(x, over, dtype=jnp.int32)
        return place(side, x, x.shape[:start])

    acc = lax.dot_general(
        codes["lhs"],
        codes["rhs"],
        (
            (where["lhs"][1], where["rhs"][1]),
            (where["lhs"][0], where["rhs"][0]),
        ),
        preferred_element_type=jnp.int32,
    )
    acc = _corrected(acc, lhs, rhs, sums, spread, terms // groups)
    out = rescale(acc, spread("lhs", lhs.scale) * spread("rhs", rhs.scale))
    return jnp.sum(out, axis=batch) if groups > 1 else out


def _grouped(codes: jax.Array, where: Sequence[Sequence[int]], groups: int):
    """Returns `[*batch, groups, *free, group]`."""
    batch, contracted, free = where
    x = codes.transpose((*batch, *contracted, *free))
    lead = x.shape[: len(batch)]
    rest = x.shape[len(batch) + len(contracted) :]
    x = x.reshape((*lead, groups, -1, *rest))
    return jnp.moveaxis(x, len(lead) + 1, -1)


def _convolve(site: Site, lhs: Operand, rhs: Operand, rescale: Rescale) -> jax.Array:
    dims = site.params["dimension_numbers"]
    x, params = _padded(site, lhs)
    # In this order, none of them a batch group.
    kept = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    options = {name: params[name] for name in kept} | {
        "dimension_numbers": dims,
        "feature_group_count": params["feature_group_count"],
        "preferred_element_type": jnp.int32,
    }
    acc = lax.conv_general_dilated(x, rhs.codes, **options)
    rank = acc.ndim

    def spread(side: str, v: jax.Array) -> jax.Array:
        axis = dims.out_spec[0 if side == "lhs" else 1]
        return v.reshape([-1 if i == axis else 1 for i in range(rank)])

    def sums(side: str) -> jax.Array:
        if rhs.sums is not None and side == "rhs":
            return spread("rhs", rhs.sums)
        if side == "rhs":
            _, contracted, _ = sides(site, "rhs")
            return spread("rhs", jnp.sum(rhs.codes, contracted, dtype=jnp.int32))
        # The window's sum, of each group's channels.
        ones = jnp.ones_like(rhs.codes)
        return lax.conv_general_dilated(x, ones, **options)

    acc = _corrected(acc, lhs, rhs, sums, spread, contracted_length(site))
    return rescale(acc, spread("lhs", lhs.scale) * spread("rhs", rhs.scale))


def _padded(site: Site, lhs: Operand) -> tuple[jax.Array, dict]:
    """Returns the codes padded with the zero point, and parameters without padding."""
    params = dict(site.params)
    if lhs.zero is None:
        return lhs.codes, params  # 0 is what a convolution pads with
    spatial = len(params["window_strides"])
    config = [(0, 0, 0)] * lhs.codes.ndim
    for axis, (low, high), step in zip(
        params["dimension_numbers"].lhs_spec[2:],
        params["padding"],
        params["lhs_dilation"],
        strict=True,
    ):
        config[axis] = (low, high, step - 1)
    params |= {"padding": [(0, 0)] * spatial, "lhs_dilation": (1,) * spatial}
    zero = lhs.zero.astype(jnp.int8)
    if zero.size == 1:
        return lax.pad(lhs.codes, zero.reshape(()), config), params
    # One for each image.
    batch = params["dimension_numbers"].lhs_spec[0]
    zero = zero.reshape([-1 if i == batch else 1 for i in range(lhs.codes.ndim)])
    inside = lax.pad(jnp.ones(lhs.codes.shape, bool), False, config)
    padded = lax.pad(lhs.codes, jnp.zeros((), jnp.int8), config)
    return jnp.where(inside, padded, zero), params
