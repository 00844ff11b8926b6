"""Integer grids: range -> scale and zero point -> rounding, and its derivative.

The invariant, everywhere: `x ~ (code - zero_point) * scale`, with whole codes in
`[low, high]`. Zero is always on the grid, so that pruned weights stay zero.

XLA rewrites divisions (x / y into x * (1 / y), x / (y / z) into x * z / y) as the code
around them happens to be compiled, and may keep bfloat16 in float32. So that training,
freezing and the packed file agree to the last bit, whatever is fused with what, grids
are float32, the one division is `1 / scale`, and a barrier keeps it as it is written.
A barrier does not keep LLVM from fusing a product with the sum behind it, which rounds
once instead of twice: no grid adds to a product (`transforms/factorize.py` has to).
Equations follow Jacob et al. 2018 (arXiv 1712.05877, eq. 1); the straight-through
derivative is Bengio et al. 2013 (arXiv 1308.3432).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from lib import errors

BITS = (2, 8)  # the fewest and the most bits of a code


class Grid(NamedTuple):
    """A uniform grid; all fields are float32 and broadcast against the data.

    Attributes:
      scale: positive, the distance between neighbours; exact in the data's dtype.
      zero_point: a whole number, the code that stands for 0.
      low: the smallest code, a scalar.
      high: the largest code, a scalar.
    """

    scale: jax.Array
    zero_point: jax.Array
    low: jax.Array
    high: jax.Array


def check_bits(bits: int | jax.Array, where: str) -> None:
    """Raises a `UserError` unless `bits` is traced or a whole number in `BITS`."""
    if isinstance(bits, jax.core.Tracer):
        return
    least, most = BITS
    number = isinstance(bits, int | float | np.number | jax.Array)
    number = number and not isinstance(bits, bool)
    if not number or not least <= bits <= most or int(bits) != bits:
        raise errors.UserError(
            f"{where}: bits is a whole number from {least} to {most}, got {bits}"
        )


def levels(bits: int | jax.Array, *, symmetric: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the smallest and largest code of `bits` bits, as float scalars.

    Symmetric grids give up the most negative code, so that -x is on the grid with x.
    `bits` may be traced.
    """
    # A shift is exact on every backend; exp2 is not.
    count = jnp.left_shift(1, jnp.asarray(bits, jnp.int32))
    if symmetric:
        high = (count // 2 - 1).astype(jnp.float32)
        return -high, high
    return jnp.zeros((), jnp.float32), (count - 1).astype(jnp.float32)


_LEAST_SCALE = 2 * float(jnp.finfo(jnp.float32).tiny)  # its inverse is finite

# 1 / (the number of steps from 0 to the largest code), by bits.
_PER_STEP = {
    True: [0.0] * 2 + [1 / (2 ** (b - 1) - 1) for b in range(BITS[0], BITS[1] + 1)],
    False: [0.0] * 2 + [1 / (2**b - 1) for b in range(BITS[0], BITS[1] + 1)],
}


def grid(
    smallest: jax.Array, largest: jax.Array, bits: int | jax.Array, *, symmetric: bool
) -> Grid:
    """Returns the grid of `bits` bits that covers `[smallest, largest]` and 0.

    Args:
      smallest: least value to cover, any shape and float dtype.
      largest: greatest value to cover, the same shape.
      bits: 2 to 8; may be traced.
      symmetric: zero point 0 and codes in `[-high, high]`; else codes from 0 up.
    """
    dtype = jnp.finfo(smallest.dtype)
    smallest, largest = (x.astype(jnp.float32) for x in (smallest, largest))
    low, high = levels(bits, symmetric=symmetric)
    per_step = jnp.asarray(_PER_STEP[symmetric], jnp.float32)[
        jnp.asarray(bits, jnp.int32)
    ]
    if symmetric:
        width = jnp.maximum(jnp.abs(smallest), jnp.abs(largest))
    else:
        smallest, largest = jnp.minimum(smallest, 0), jnp.maximum(largest, 0)
        width = largest - smallest
    # The file stores the scale in the weight's dtype; use what it will hold.
    scale = lax.reduce_precision(width * per_step, dtype.nexp, dtype.nmant)
    # A range of nothing but zeros and subnormal numbers is a range of zeros.
    scale = jnp.where(scale < _LEAST_SCALE, jnp.ones_like(scale), scale)
    scale = lax.optimization_barrier(scale)
    if symmetric:
        return Grid(scale, jnp.zeros_like(scale), low, high)
    zero_point = jnp.clip(jnp.round(-smallest * _inverse(scale)), low, high)
    return Grid(scale, zero_point, low, high)


def _inverse(scale: jax.Array) -> jax.Array:
    return lax.optimization_barrier(1 / lax.optimization_barrier(scale))


def _offset(x: jax.Array, g: Grid) -> jax.Array:
    """Returns the code of `x` less the zero point, as a whole float32."""
    # Half to even, as ONNX QuantizeLinear.
    rounded = jnp.round(x.astype(jnp.float32) * _inverse(g.scale))
    offset = jnp.clip(rounded, g.low - g.zero_point, g.high - g.zero_point)
    # round(-0.3) is -0.0; integers know one zero only, and the file holds integers.
    return jnp.where(offset == 0, jnp.zeros_like(offset), offset)


def encode(x: jax.Array, g: Grid) -> jax.Array:
    """Returns the codes of `x`, whole float32 in `[low, high]`, of x's shape."""
    return _offset(x, g) + g.zero_point


def fake_quant(x: jax.Array, g: Grid) -> jax.Array:
    """Returns the point of the grid nearest to each `x`, in x's dtype.

    Derivative (straight through, clipped): 1 where `x` lies inside the grid's range
    and 0 outside; the grid itself is a constant.
    """
    return fake_quant_p.bind(x, *g, learned=False)


def learned_fake_quant(x: jax.Array, g: Grid) -> jax.Array:
    """Returns `fake_quant(x, g)`, with derivatives to the scale and the zero point too.

    With y the result: dy/dscale is (y - x) / scale inside the range and y / scale, the
    outermost code less the zero point, outside (LSQ, Esser et al. 2020, arXiv
    1902.08153, eq. 3); dy/dzero_point is 0 inside and -scale outside (LSQ+, Bhalgat et
    al. 2020, arXiv 2004.09576, eq. 4, whose offset is -scale * zero_point).
    """
    return fake_quant_p.bind(x, *g, learned=True)


def _fake_quant(x, *grid, learned):
    del learned  # it changes the derivative only
    g = Grid(*grid)
    return (_offset(x, g) * g.scale).astype(x.dtype)


# One equation of a traced program, `fake_quant(x, scale, zero_point, low, high)`, so
# that whoever reads programs finds every rounding with its grid. The last four are
# float32, each a scalar or of x's rank and broadcasting against it.
fake_quant_p = core.Primitive("fake_quant")
fake_quant_p.def_impl(jax.jit(_fake_quant, static_argnames="learned"))
fake_quant_p.def_abstract_eval(
    lambda x, *grid, learned: jax.core.ShapedArray(x.shape, x.dtype)
)
mlir.register_lowering(
    fake_quant_p, mlir.lower_fun(_fake_quant, multiple_results=False)
)


def _fake_quant_jvp(primals, tangents, *, learned):
    x, *grid = primals
    dx, dscale, dzero, *_ = tangents
    g = Grid(*grid)
    y = fake_quant_p.bind(x, *g, learned=learned)
    # Half a step of slack: what rounds onto the outermost point is inside.
    low = (g.low - g.zero_point - 0.5) * g.scale
    high = (g.high - g.zero_point + 0.5) * g.scale
    inside = (x >= low) & (x <= high)
    parts = []
    if not isinstance(dx, ad.Zero):
        parts.append(jnp.where(inside, dx, jnp.zeros_like(dx)))
    if learned and not isinstance(dscale, ad.Zero):
        steps = (y - jnp.where(inside, x, jnp.zeros_like(x))) * _inverse(g.scale)
        parts.append((steps * dscale).astype(x.dtype))
    if learned and not isinstance(dzero, ad.Zero):
        moved = jnp.where(inside, jnp.zeros((), jnp.float32), -g.scale)
        parts.append((moved * dzero).astype(x.dtype))
    if not parts:
        return y, jnp.zeros_like(y)
    return y, functools.reduce(jnp.add, parts)


ad.primitive_jvps[fake_quant_p] = _fake_quant_jvp


def _fake_quant_batched(args, dims, *, learned):
    x, *grid = args
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    front = None if dims[0] is None else jnp.moveaxis(x, dims[0], 0)
    x = jnp.broadcast_to(x[None], (size, *x.shape)) if front is None else front

    def spread(part, dim):
        """Returns a part of the grid as it broadcasts against the batch."""
        if dim is not None:
            part = jnp.moveaxis(part, dim, 0)
            lacks = x.ndim - part.ndim  # a scalar for each, against an array
            return part.reshape((size, *(1 for _ in range(lacks)), *part.shape[1:]))
        return part[None] if part.ndim else part

    grid = [spread(part, dim) for part, dim in zip(grid, dims[1:], strict=True)]
    return fake_quant_p.bind(x, *grid, learned=learned), 0


batching.primitive_batchers[fake_quant_p] = _fake_quant_batched


@jax.custom_jvp
def straight_through(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns exactly `y`, with the derivative of `x`.

    `x + stop_gradient(y - x)` would not give `y` to the last bit.
    """
    del x
    return y


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    x, y = primals
    return straight_through(x, y), tangents[0]
