"""Weights and activations as operands of integer contractions."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import formats, numerics, tree
from lib import representations as reps
from lib.program.integer import nibbles
from lib.program.integer.carried import Carried
from lib.program.integer.products import Operand, sides
from lib.program.sites import Site

_HALF = 128  # what makes int8 of the codes 0 to 255


def integer_params(frozen: reps.Frozen, *, pack: bool = True) -> Any:
    """Returns the params for `run_integer`: codes where there are any, else arrays.

    Weights below a mask keep their codes, where 0 is what the mask removes. Formats
    whose levels are multiples of one step, as ternary weights and powers of two, become
    `Quantized`. Ties are resolved. Everything else is made dense.

    Args:
      frozen: nested dict of representations.
      pack: codes of 4 bits or fewer as `nibbles.Nibbles`, two to a byte.
    """
    flat = {path: reps.of(x) for path, x in tree.flatten(frozen).items()}
    dense = tree.flatten(reps.thaw(frozen))

    def leaf(path: str) -> Any:
        rep = flat[path]
        if isinstance(rep, reps.Tied):
            return made(rep.path) if rep.path in flat else dense[path]
        mask = None
        if isinstance(rep, reps.Sparse):
            mask, rep = np.asarray(rep.mask), rep.values
        if isinstance(rep, reps.Levels):
            rep = _even(rep)
        if not isinstance(rep, reps.Quantized):
            return dense[path]
        if mask is not None:
            rep = _masked(rep, mask)
        if pack and rep.bits <= nibbles.BITS:
            return dataclasses.replace(rep, codes=nibbles.pack(rep.codes))
        return rep

    known: dict[str, Any] = {}

    def made(path: str) -> Any:
        if path not in known:
            known[path] = leaf(path)
        return known[path]

    return tree.unflatten({path: made(path) for path in flat})


def _even(rep: reps.Levels) -> reps.Quantized | reps.Levels:
    """Returns the weight on an even grid of int8, if its levels are on one."""
    levels = formats.FORMATS[rep.format]
    for shift in range(8):
        whole = levels * 2**shift
        most = int(np.abs(whole).max())
        if most < _HALF and (whole == np.rint(whole)).all():
            codes = whole.astype(np.int8)[np.asarray(rep.codes)]
            # A shift of the exponent: their product stays what it was.
            scale = np.asarray(rep.scale) * np.asarray(2.0**-shift, rep.scale.dtype)
            bits = max(most.bit_length() + 1, numerics.BITS[0])
            return reps.Quantized(codes, scale, None, bits, rep.group)
    return rep


def _masked(rep: reps.Quantized, mask: np.ndarray) -> reps.Quantized:
    codes = np.asarray(rep.codes)
    zero = np.zeros((), codes.dtype)
    if rep.zero_point is not None:  # the code of 0
        zero = np.broadcast_to(rep.zero_point, _view(rep)).reshape(codes.shape)
    return dataclasses.replace(rep, codes=np.where(mask, codes, zero))


def _shape(rep: reps.Quantized) -> tuple[int, ...]:
    return tuple(rep.codes.shape)


def _view(rep: reps.Quantized) -> tuple[int, ...]:
    """Returns the shape against which scale and zero point broadcast."""
    shape = _shape(rep)
    if not rep.group:
        return shape
    return (math.prod(shape[:-1]) // rep.group, rep.group, shape[-1])


def _codes(rep: reps.Quantized) -> jax.Array:
    packed = isinstance(rep.codes, nibbles.Nibbles)
    return nibbles.unpack(rep.codes) if packed else jnp.asarray(rep.codes)


def abstract(rep: reps.Quantized) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of the weight that a representation stands for."""
    return jax.ShapeDtypeStruct(_shape(rep), rep.scale.dtype)


def dense(rep: reps.Quantized) -> jax.Array:
    """Returns the weight: `representations.materialize`, but traced."""
    whole = _codes(rep).astype(jnp.int32).reshape(_view(rep))
    if rep.zero_point is not None:
        whole = whole - jnp.asarray(rep.zero_point).astype(jnp.int32)
    scale = jnp.asarray(rep.scale)
    wide = whole.astype(jnp.float32) * scale.astype(jnp.float32)
    return wide.astype(scale.dtype).reshape(_shape(rep))


class Weight(NamedTuple):
    """A coded weight at a contraction.

    Attributes:
      rep: codes, scale and zero point, in the weight's own shape.
      way: how they get there.
      entries: int32 `[*slices, *]`, as `Operand.scale`: the number of the entry of
        the flattened scale that stands there.
      largest: the largest magnitude of `code - zero point`.
      order: of the axes, that brings the contracted ones together.
      contracted: where they are then, how many, and in how many groups they fall.
    """

    rep: reps.Quantized
    way: Carried
    entries: np.ndarray
    largest: int
    order: tuple[int, ...]
    contracted: tuple[int, int, int]


def entries(rep: reps.Quantized, way: Carried) -> np.ndarray:
    """Returns which entry of the flattened scale each element has where it arrives."""
    count = math.prod(rep.scale.shape)
    own = np.arange(count, dtype=np.int32).reshape(rep.scale.shape)
    return way.move(np.broadcast_to(own, _view(rep)).reshape(_shape(rep)))


def weight(rep: reps.Quantized, way: Carried, site: Site, side: str) -> Weight | str:
    """Returns a weight as a contraction takes it, or why it cannot."""
    convolves = site.primitive == "conv_general_dilated"
    if convolves and side == "lhs":
        return "its weight is the image of a convolution, not its kernel"
    batch, contracted, free = sides(site, side)
    own = entries(rep, way)
    slices = sum(way.sliced)
    order = [*range(slices), *(slices + a for a in (*batch, *contracted, *free))]
    own = own.transpose(order)
    before = own.shape[: slices + len(batch)]
    after = own.shape[len(before) + len(contracted) :]
    own = own.reshape((*before, -1, *after))
    groups = _groups(np.moveaxis(own, len(before), 0))
    if groups > 1 and convolves:
        return "its weight has a scale for each group, which a window cannot split"
    if groups == own.shape[len(before)] > 1:
        return "each term of its sums has a scale of its own"
    length = own.shape[len(before)] // groups
    own = own.take(np.arange(groups) * length, len(before))
    if convolves:
        own = own.reshape((*before, *after))
    affine = rep.zero_point is not None
    largest = 2**rep.bits - 1 if affine else 2 ** (rep.bits - 1) - 1
    where = (len(before), len(contracted), groups)
    return Weight(rep, way, own, largest, tuple(order), where)


def _groups(entries: np.ndarray) -> int:
    """Returns into how many equal runs the first axis falls, each of one entry."""
    rows = entries.reshape(len(entries), -1)
    starts = np.flatnonzero((rows[1:] != rows[:-1]).any(1)) + 1
    length = math.gcd(len(rows), *starts.tolist())
    return len(rows) // max(length, 1)


def _offsets(rep: reps.Quantized) -> tuple[jax.Array, jax.Array | None]:
    """Returns int8 codes and int32 zero points, None where these are 0."""
    codes = _codes(rep)
    if rep.zero_point is None:
        return codes, None
    points = jnp.asarray(rep.zero_point)
    if rep.bits == 8:
        codes = lax.bitcast_convert_type(codes ^ np.uint8(_HALF), jnp.int8)
        return codes, points.astype(jnp.int32) - _HALF
    # What is left of the code fits int8.
    less = codes.reshape(_view(rep)).astype(jnp.int16) - points.astype(jnp.int16)
    return less.astype(jnp.int8).reshape(_shape(rep)), None


def operand(w: Weight) -> Operand:
    """Returns the weight's codes where they are contracted; slices are leading axes."""
    rep = w.rep
    codes, points = _offsets(rep)
    zero = None if points is None else points.ravel()[w.entries]
    scale = jnp.asarray(rep.scale).astype(jnp.float32).ravel()[w.entries]
    codes = w.way.move(codes)
    return Operand(codes, zero, scale, _sums(w))


def _sums(w: Weight) -> jax.Array | None:
    """Returns the sums of a weight's codes, if it is known while the program is traced.

    Else XLA would sum them up when it compiles, a few seconds for a million.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(w.rep)):
        return None
    with jax.ensure_compile_time_eval():
        codes = np.asarray(w.way.move(_offsets(w.rep)[0]))
    at, count, groups = w.contracted
    codes = codes.transpose(w.order)
    lead, rest = codes.shape[:at], codes.shape[at + count :]
    sums = codes.reshape((*lead, groups, -1, *rest)).sum(at + 1, dtype=np.int32)
    return jnp.asarray(sums.reshape(w.entries.shape))


def why_not_activation(site: Site, side: str, shape: tuple[int, ...]) -> str:
    """Returns why a rounded operand cannot be contracted as codes; or empty.

    Args:
      site: the contraction.
      side: of the operand, "lhs" or "rhs".
      shape: of the scale that it is rounded by.
    """
    if side == "rhs" and site.primitive == "conv_general_dilated":
        return "its kernel is an activation"
    _, contracted, _ = sides(site, side)
    if shape and any(shape[axis] != 1 for axis in contracted):
        return f"its {side} has more than one scale in a sum"
    return ""


def activation(
    x: jax.Array, grid: numerics.Grid, site: Site, side: str, symmetric: bool
) -> Operand:
    """Returns an activation's codes: those that `numerics.fake_quant` rounds to."""
    batch, contracted, free = sides(site, side)

    def vector(v: jax.Array) -> jax.Array:
        v = v.reshape((1,) * x.ndim) if v.ndim == 0 else v
        v = v.transpose((*batch, *contracted, *free))
        lead = v.shape[: len(batch)]
        rest = v.shape[len(batch) + len(contracted) :]
        if site.primitive == "conv_general_dilated":
            return v.reshape(rest)
        return v.reshape((*lead, 1, *rest))

    scale, codes = vector(grid.scale), numerics.encode(x, grid)
    if symmetric:
        return Operand(codes.astype(jnp.int8), None, scale)
    zero = vector(grid.zero_point).astype(jnp.int32) - _HALF
    return Operand((codes - _HALF).astype(jnp.int8), zero, scale)
