"""What a frozen weight is: a few plain pytrees that packers and exporters read.

`freeze` turns every leaf of a params tree into one of these. Each may hold another:
`Sparse` over `Quantized`, `LowRank` of two `Codebook`s. All arrays keep the full shape
of the weight they stand for; only the packed file leaves out what a mask removed.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import tree

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


@_pytree()
class Codebook:
    """Shared values: `weight = centroids[indices]`.

    Attributes:
      indices: uint8 or uint16, the weight's shape, each below `len(centroids)`.
      centroids: `[k]` float.
    """

    indices: Array
    centroids: Array


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
    """A product of two factors: `weight = u @ v`, `[in, rank] @ [rank, out]`."""

    u: "Representation"
    v: "Representation"


Representation = Dense | Quantized | Codebook | Sparse | LowRank
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
        case Quantized(codes=codes):
            return Sparse(mask, dataclasses.replace(below, codes=clear(codes)))
        case Codebook(indices, centroids):
            return Sparse(mask, Codebook(clear(indices), centroids))
        case LowRank():
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
        case Codebook(indices, centroids):
            return np.asarray(centroids)[np.asarray(indices)]
        case Sparse(mask, values):
            below = materialize(values)
            return np.where(np.asarray(mask), below, np.zeros((), below.dtype))
        case LowRank(u, v):
            return np.asarray(jnp.asarray(materialize(u)) @ jnp.asarray(materialize(v)))
    raise TypeError(f"not a representation: {type(rep).__name__}")


def shape_of(rep: Representation) -> tuple[int, ...]:
    """Returns the shape of the weight that `rep` stands for."""
    match rep:
        case Dense(values):
            return np.shape(values)
        case Quantized(codes=codes):
            return np.shape(codes)
        case Codebook(indices, centroids):
            return np.shape(indices) + np.shape(centroids)[1:]
        case Sparse(mask=mask):
            return np.shape(mask)
        case LowRank(u, v):
            return shape_of(u)[:-1] + shape_of(v)[1:]
    raise TypeError(f"not a representation: {type(rep).__name__}")


def nonzero(rep: Representation) -> int:
    """Returns how many stored weights are not zero; factors count, not products."""
    if isinstance(rep, LowRank):
        return nonzero(rep.u) + nonzero(rep.v)
    return int(np.count_nonzero(materialize(rep)))


def params(rep: Representation) -> int:
    """Returns how many weights are stored, zeros included; factors, not products."""
    if isinstance(rep, LowRank):
        return params(rep.u) + params(rep.v)
    return int(np.prod(shape_of(rep)))


def thaw(frozen: Frozen) -> Any:
    """Returns the nested dict of dense weights of a frozen tree."""
    flat = tree.flatten(frozen)
    return tree.unflatten({p: materialize(of(leaf)) for p, leaf in flat.items()})
