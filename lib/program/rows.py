"""The input of a contraction as rows: one for each place a kernel is applied to."""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from lib.program.meets import Meeting, axes
from lib.program.sites import Site


def rows(site: Site, lhs: jax.Array, rhs: jax.Array, met: Meeting) -> jax.Array:
    """Returns the input `[rows, contraction]` that meets a kernel at a site.

    Of a convolution in groups: `[groups, rows, contraction]`.

    Args:
      site: where they meet.
      lhs: its first operand.
      rhs: its second operand.
      met: which of them is the kernel, and the order of its rows.
    """
    if site.primitive == "conv_general_dilated":
        x = _patches(site, lhs)  # [rows, window, features]
        places, window, features = x.shape
        if met.groups > 1:
            x = x.reshape(places, window, met.groups, -1).transpose((2, 0, 1, 3))
        x = x.reshape(*x.shape[:-2], window * features // met.groups)
    else:
        x, side = (rhs, "rhs") if met.side == "lhs" else (lhs, "lhs")
        contracted, free = axes(site, side)
        width = math.prod(x.shape[axis] for axis in contracted)
        x = x.transpose((*free, *contracted)).reshape(-1, width)
    if (met.columns == range(x.shape[-1])).all():  # spares a gather
        return x
    return jnp.take(x, met.columns, axis=-1)


def _patches(site: Site, images: jax.Array) -> jax.Array:
    """Returns a convolution's patches `[batch * places, window, features]`.

    Strided slices of the padded images: exact, whatever the precision of products.
    """
    params = site.params
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    batch, features, *spatial = lhs_spec
    x = images.transpose((batch, *spatial, features))
    padding = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(
            params["padding"], params["lhs_dilation"], strict=True
        )
    ]
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *padding, (0, 0, 0)])
    out = [site.out.shape[axis] for axis in out_spec[2:]]
    window = [site.rhs.shape[axis] for axis in rhs_spec[2:]]
    strides = params["window_strides"]
    taps = []
    for tap in itertools.product(*map(range, window)):
        start = [t * d for t, d in zip(tap, params["rhs_dilation"], strict=True)]
        limit = [
            s + (n - 1) * stride + 1
            for s, n, stride in zip(start, out, strides, strict=True)
        ]
        taps.append(
            lax.slice(
                x,
                (0, *start, 0),
                (x.shape[0], *limit, x.shape[-1]),
                (1, *strides, 1),
            )
        )
    # [batch, *places, window, features]
    return jnp.stack(taps, axis=-2).reshape(-1, len(taps), x.shape[-1])
