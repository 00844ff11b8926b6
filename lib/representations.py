"""What a frozen weight is: a few plain pytrees that packers and exporters read.

`freeze` turns every leaf of a params tree into one of these. Each may hold another:
`Sparse` over `Quantized`, `LowRank` of two `Codebook`s. All arrays keep the full shape
of the weight they stand for; only the packed file leaves out what a mask removed.

Sums and products of parts are left to JAX by `materialize`, op for op as the `decode`
that they come from: the same contractions, not compiled together with anything else.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import formats, tree

Array = jax.Array | np.ndarray


def _pytree(*, static: tuple[str, ...] = ()):
    """Registers a frozen dataclass as a pytree; `static` fields are not arrays."""

    def register(cls):
        cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
        data = [f.name for f in dataclasses.fields(cls) if f.name not in static]
        jax.tree_util.register_dataclass(cls, data, list(static))
        return cls

    return register


@_pytree()
class Dense:
    """The weight itself: `values`, of any shape and dtype."""

    values: Array


@_pytree(static=("bits", "group"))
class Quantized:
    """Integers on a grid: `weight = (codes - zero_point) * scale`.

    With `group > 0` the equation holds for `codes` seen as
    `[contraction / group, group, out]`, where `contraction` is the product of all
    axes but the last. `scale` and `zero_point` broadcast against that view. The
    product is float32, rounded to the scale's dtype.

    Attributes:
      codes: int8 (symmetric) or uint8 (affine), the weight's shape.
      scale: float, the weight's dtype; broadcasts against `codes` (or their view).
      zero_point: same shape as `scale`, uint8; None if symmetric (all zeros).
      bits: 2 to 8. Symmetric codes lie in `[1 - 2**(bits-1), 2**(bits-1) - 1]`,
        affine ones in `[0, 2**bits - 1]`.
      group: length of a group along the contraction axis; 0 if there are none.
    """

    codes: Array
    scale: Array
    zero_point: Array | None
    bits: int
    group: int = 0


@_pytree(static=("format", "group"))
class Levels:
    """Codes of an uneven grid: `weight = FORMATS[format][codes] * scale`.

    The product is float32, rounded to the scale's dtype; groups are as `Quantized` has
    them.

    Attributes:
      codes: uint8, the weight's shape, each below the number of the format's levels.
      scale: float, the weight's dtype; broadcasts against `codes` (or their view).
      format: a key of `formats.FORMATS`.
      group: length of a group along the contraction axis; 0 if there are none.
    """

    codes: Array
    scale: Array
    format: str
    group: int = 0


@_pytree(static=("shape",))
class Codebook:
    """Shared values: `weight = centroids[indices]`.

    With centroids of `d` values each (product quantization), the equation holds for
    the weight seen as `[contraction / d, d, out]`: the d values at `[i, :, o]` are
    `centroids[indices[i, o]]`.

    Attributes:
      indices: uint8 or uint16, each below `k`; the weight's shape, or
        `[contraction / d, out]`.
      centroids: `[k]` or `[k, d]` float, an array or a representation of one.
      shape: the weight's shape where centroids are vectors; else ().
    """

    indices: Array
    centroids: "Array | Representation"
    shape: tuple[int, ...] = ()


@_pytree()
class Sparse:
    """Masked weights: `weight = where(mask, values, 0)`.

    Attributes:
      mask: bool, the weight's shape, True = keep.
      values: the representation below, full shape. Where the mask is False its
        arrays of the mask's shape hold 0, so that equal weights are equal trees;
        `sparse` sees to that.
    """

    mask: Array
    values: "Representation"


@_pytree()
class LowRank:
    """A product of two factors: `weight = u @ v`, `[..., rank] @ [rank, out]`.

    Of a convolution `[h, w, in, out]`, `u` is `[h, w, in, rank]`: a convolution into
    `rank` channels, followed by a 1x1 convolution.
    """

    u: "Representation"
    v: "Representation"


@_pytree()
class Tucker:
    """Tucker-2 of a convolution: `weight = first . core . last` over its channels.

    `weight[h, w, i, o] = sum_pq first[i, p] * core[h, w, p, q] * last[q, o]`, computed
    as `einsum("ip,hwpq->hwiq", first, core) @ last`.

    Attributes:
      first: `[in, p]`.
      core: `[h, w, p, q]`.
      last: `[q, out]`.
    """

    first: "Representation"
    core: "Representation"
    last: "Representation"


@_pytree()
class CP:
    """CP of a convolution: `weight[h,w,i,o] = sum_r a[h,r] b[w,r] c[i,r] d[r,o]`.

    Computed as `einsum("hr,wr,ir->hwir", a, b, c) @ d`, the einsum as two products of
    broadcast arrays, `(a * b) * c`.

    Attributes:
      height: `[h, rank]`.
      width: `[w, rank]`.
      first: `[in, rank]`.
      last: `[rank, out]`.
    """

    height: "Representation"
    width: "Representation"
    first: "Representation"
    last: "Representation"


@_pytree()
class Sum:
    """A sum of two weights of one shape, as low rank plus sparse: `base + extra`."""

    base: "Representation"
    extra: "Representation"


@_pytree(static=("path",))
class Tied:
    """The weight of another path of the same tree; stored and counted there."""

    path: str


Representation = (
    Dense | Quantized | Levels | Codebook | Sparse | LowRank | Tucker | CP | Sum | Tied
)
Frozen = Any  # a nested dict whose leaves are representations (arrays count as Dense)


def of(leaf: Any) -> Representation:
    """Returns `leaf` if it is a representation, else `Dense(leaf)`."""
    return leaf if isinstance(leaf, Representation) else Dense(np.asarray(leaf))


def sparse(mask: Array, below: Representation) -> Sparse:
    """Returns `Sparse(mask, below)` with everything the mask removes set to 0.

    Args:
      mask: bool, True = keep.
      below: a representation of the same shape; a `Sparse` one is merged into the
        mask.
    """
    mask = np.asarray(mask)
    if isinstance(below, Sparse):
        return sparse(mask & np.asarray(below.mask), below.values)

    def clear(x: Array) -> Array:
        x = np.asarray(x)
        return np.where(mask, x, np.zeros((), x.dtype)) if x.shape == mask.shape else x

    match below:
        case Dense(values):
            return Sparse(mask, Dense(clear(values)))
        case Quantized(codes=codes) | Levels(codes=codes):
            return Sparse(mask, dataclasses.replace(below, codes=clear(codes)))
        case Codebook(indices):
            return Sparse(mask, dataclasses.replace(below, indices=clear(indices)))
        case LowRank() | Tucker() | CP() | Sum():
            return Sparse(mask, below)
    raise TypeError(f"not a representation: {type(below).__name__}")


def materialize(rep: Representation) -> np.ndarray:
    """Returns the dense weight that `rep` stands for.

    Computed by NumPy, so that nothing is compiled; it agrees with `decode` to the last
    bit. A product of factors is left to JAX, whose order of summation is `decode`'s.
    """
    match rep:
        case Dense(values):
            return np.asarray(values)
        case Quantized(codes, scale, zero_point, _, group):
            codes, scale = np.asarray(codes), np.asarray(scale)
            view = (-1, group, codes.shape[-1]) if group else codes.shape
            whole = codes.astype(np.int32).reshape(view)
            if zero_point is not None:
                whole = whole - np.asarray(zero_point, np.int32)
            # In float32 and rounded once, as `numerics.fake_quant` does.
            wide = whole.astype(np.float32) * scale.astype(np.float32)
            return wide.astype(scale.dtype).reshape(codes.shape)
        case Levels(codes, scale, name, group):
            codes, scale = np.asarray(codes), np.asarray(scale)
            view = (-1, group, codes.shape[-1]) if group else codes.shape
            levels = formats.FORMATS[name][codes].reshape(view)
            wide = levels * scale.astype(np.float32)
            return wide.astype(scale.dtype).reshape(codes.shape)
        case Codebook(indices, centroids, shape):
            found = materialize(of(centroids))[np.asarray(indices)]
            # Of vectors: [contraction / d, out, d].
            return np.swapaxes(found, 1, 2).reshape(shape) if shape else found
        case Sparse(mask, values):
            below = materialize(values)
            return np.where(np.asarray(mask), below, np.zeros((), below.dtype))
        case LowRank(u, v):
            return np.asarray(_jax(u) @ _jax(v))
        case Tucker(first, core, last):
            inner = jnp.einsum("ip,hwpq->hwiq", _jax(first), _jax(core))
            return np.asarray(inner @ _jax(last))
        case CP(height, width, first, last):
            return np.asarray(cp_inner(*map(_jax, (height, width, first))) @ _jax(last))
        case Sum(base, extra):
            return np.asarray(_jax(base) + _jax(extra))
        case Tied(path):
            raise TypeError(f"tied to {path}: only a whole tree can be materialized")
    raise TypeError(f"not a representation: {type(rep).__name__}")


def _jax(rep: Representation) -> jax.Array:
    return jnp.asarray(materialize(rep))


def cp_inner(height: jax.Array, width: jax.Array, first: jax.Array) -> jax.Array:
    """Returns `[h, w, in, rank]`, the product of three of CP's four factors."""
    planes = height[:, None, :] * width[None, :, :]
    return planes[:, :, None, :] * first[None, None, :, :]


def shape_of(rep: Representation) -> tuple[int, ...]:
    """Returns the shape of the weight that `rep` stands for."""
    match rep:
        case Dense(values):
            return np.shape(values)
        case Quantized(codes=codes) | Levels(codes=codes):
            return np.shape(codes)
        case Codebook(indices=indices, shape=shape):
            return shape or np.shape(indices)
        case Sparse(mask=mask):
            return np.shape(mask)
        case LowRank(u, v):
            return shape_of(u)[:-1] + shape_of(v)[1:]
        case Tucker(first, core, last):
            return shape_of(core)[:2] + shape_of(first)[:1] + shape_of(last)[1:]
        case CP(height, width, first, last):
            kernel = tuple(shape_of(x)[0] for x in (height, width, first))
            return kernel + shape_of(last)[1:]
        case Sum(base):
            return shape_of(base)
        case Tied(path):
            raise TypeError(f"tied to {path}: its shape is that path's")
    raise TypeError(f"not a representation: {type(rep).__name__}")


def parts(rep: Representation) -> list[Representation]:
    """Returns what is stored of a weight: factors and summands, down to single arrays.

    A tied weight stores nothing; a masked product is its factors.
    """
    match rep:
        case Tied():
            return []
        case LowRank() | Tucker() | CP() | Sum():
            fields = [getattr(rep, f.name) for f in dataclasses.fields(rep)]
            return [part for below in fields for part in parts(below)]
        case Sparse(values=LowRank() | Tucker() | CP() | Sum() as below):
            return parts(below)
    return [rep]


def nonzero(rep: Representation) -> int:
    """Returns how many stored weights are not zero; factors count, not products."""
    return sum(int(np.count_nonzero(materialize(part))) for part in parts(rep))


def params(rep: Representation) -> int:
    """Returns how many weights are stored, zeros included; factors, not products."""
    return sum(int(np.prod(shape_of(part))) for part in parts(rep))


def thaw(frozen: Frozen) -> Any:
    """Returns the nested dict of dense weights of a frozen tree.

    A tie names a path of its own tree, which may be a branch of this one.

    Raises:
      KeyError: a leaf is tied to one that is not there.
    """
    flat = {path: of(leaf) for path, leaf in tree.flatten(frozen).items()}

    def dense(path: str) -> np.ndarray:
        rep = flat[path]
        if not isinstance(rep, Tied):
            return materialize(rep)
        parents = path.split("/")[:-1]
        within = ["/".join([*parents[:i], rep.path]) for i in range(len(parents) + 1)]
        return dense(next((p for p in within if p in flat), rep.path))

    return tree.unflatten({path: dense(path) for path in flat})
