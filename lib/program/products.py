"""Contractions with a weight that is a product of factors, factor by factor.

`x @ (u @ v) = (x @ u) @ v`, and of convolutions: into `rank` channels, then 1x1
(Denton et al. 2014, arXiv 1404.0736); Tucker-2: 1x1, core, 1x1 (Kim et al. 2016, arXiv
1511.06530, eq. 2-4); CP: 1x1, along the height, along the width, 1x1 (Lebedev et al.
2015, arXiv 1412.6553, section 3.3). All parts of a product are plain arrays here.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from lib.program.sites import Site, read
from lib.representations import CP, LowRank, Sum, Tucker, cp_inner

Product = LowRank | Tucker | CP | Sum  # of arrays; a summand may be an array or product
_HWIO = (3, 2, 0, 1)  # where output channels, input channels and the window stand


def dense(rep: Product | jax.Array) -> jax.Array:
    """Returns the weight, multiplied out: `representations.materialize`, but traced."""
    match rep:
        case LowRank(u, v):
            return u @ v
        case Tucker(first, core, last):
            return jnp.einsum("ip,hwpq->hwiq", first, core) @ last
        case CP(height, width, first, last):
            return cp_inner(height, width, first) @ last
        case Sum(base, extra):
            return dense(base) + dense(extra)
    return rep


def why_not(rep: Product | jax.Array, site: Site, side: str) -> str:
    """Returns why a site cannot take the factors one by one; empty if it can.

    Args:
      rep: the weight.
      site: a contraction that it enters.
      side: on which side, "lhs" or "rhs".
    """
    if isinstance(rep, Sum):
        return why_not(rep.base, site, side) or why_not(rep.extra, site, side)
    if not isinstance(rep, Product):
        return ""
    kind = type(rep).__name__
    dims = site.params["dimension_numbers"]
    if site.primitive == "dot_general":
        contracting, batch = (pair[side == "rhs"] for pair in dims)
        if not isinstance(rep, LowRank):
            return f"{kind} is of a convolution, and {site.name} is a product"
        if batch:
            return f"{site.name} has a weight for each example"
        last = getattr(site, side).ndim - 1
        return f"{site.name} sums over its last axis" if last in contracting else ""
    if side != "rhs":
        return f"{site.name} convolves with it as its input"
    if site.params["feature_group_count"] * site.params["batch_group_count"] > 1:
        return f"{site.name} is a convolution in groups"
    spec = dims.rhs_spec
    known = spec[0] == len(spec) - 1 if isinstance(rep, LowRank) else spec == _HWIO
    return "" if known else f"{site.name} has its channels on other axes than {kind}"


def macs(rep: Product, site: Site, side: str) -> int:
    """Returns the multiply-accumulates of one call of the site, factor by factor."""
    x = site.lhs if side == "rhs" else site.rhs
    program = read(lambda w, x: contract(w, x, site, side), (rep, x), {})
    return sum(inner.macs for inner in program.sites)


def contract(
    rep: Product | jax.Array, x: jax.Array, site: Site, side: str
) -> jax.Array:
    """Returns what the site computes of `x` and the weight, factor by factor.

    Args:
      rep: the weight, one that `why_not` has nothing against.
      x: the other operand.
      site: the contraction.
      side: that of the weight, "lhs" or "rhs".
    """
    return _contract(rep, x, site, side).astype(site.out.dtype)


def _contract(rep, x, site, side):
    if isinstance(rep, Sum):
        return _contract(rep.base, x, site, side) + _contract(rep.extra, x, site, side)
    dims = site.params["dimension_numbers"]
    if site.primitive == "dot_general":
        if not isinstance(rep, LowRank):
            return _dot(rep, x, site, side)
        # The rank stands where the last axis of the weight would, of what is free.
        (contracting, _), _ = dims
        left = rep.u.ndim if side == "lhs" else x.ndim
        axis = left - len(contracting) - 1
        if side == "rhs":
            axis += rep.u.ndim - len(contracting)
        return _mix(_dot(rep.u, x, site, side), rep.v, axis, site)
    ins, outs = dims.lhs_spec[1], dims.out_spec[1]
    match rep:
        case LowRank(u, v):
            return _mix(_conv(x, u, site), v, outs, site)
        case Tucker(first, core, last):
            y = _conv(_mix(x, first, ins, site), core, site)
            return _mix(y, last, outs, site)
        case CP(height, width, first, last):
            y = _mix(x, first, ins, site)
            y = _along(y, height[:, None, None, :], 0, dims, site)
            later = dims._replace(lhs_spec=dims.out_spec)
            y = _along(y, width[None, :, None, :], 1, later, site)
            return _mix(y, last, outs, site)
    return _conv(x, rep, site)


def _mix(y: jax.Array, factor: jax.Array, axis: int, site: Site) -> jax.Array:
    """Returns `y` with one of its axes multiplied by a factor `[from, to]`."""
    out = lax.dot_general(
        y,
        factor.astype(y.dtype),
        (((axis,), (0,)), ((), ())),
        precision=site.params["precision"],
    )
    return jnp.moveaxis(out, -1, axis)


def _dot(w: jax.Array, x: jax.Array, site: Site, side: str) -> jax.Array:
    kept = {k: site.params[k] for k in ("precision", "preferred_element_type")}
    lhs, rhs = (x, w) if side == "rhs" else (w, x)
    return lax.dot_general(lhs, rhs, site.params["dimension_numbers"], **kept)


def _conv(x: jax.Array, kernel: jax.Array, site: Site, **changes) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, **{**site.params, **changes})


def _along(x: jax.Array, kernel: jax.Array, axis: int, dims, site: Site) -> jax.Array:
    """Returns each channel convolved along one axis of the window only."""

    def only(name: str, neutral):
        return [v if i == axis else neutral for i, v in enumerate(site.params[name])]

    return _conv(
        x,
        kernel,
        site,
        window_strides=only("window_strides", 1),
        padding=only("padding", (0, 0)),
        lhs_dilation=only("lhs_dilation", 1),
        rhs_dilation=only("rhs_dilation", 1),
        dimension_numbers=dims,
        feature_group_count=math.prod(kernel.shape[2:]),
    )
