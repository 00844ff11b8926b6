"""GPTQ: what the rounding of one input's weights loses, later inputs make up for.

`code`: the compensated weights, on their grid already; `state`: see `fixed_grid`.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import errors, numerics
from lib.transforms import base, fed, fixed_grid, surgeon

ORDERS = ("natural", "activation")


class Settings(NamedTuple):
    """What is known before any weight is seen; `gptq` explains each."""

    dampening: float
    order: str
    block: int


@functools.partial(jax.jit, static_argnames=("grids", "view", "settings"))
def solve(
    w: jax.Array,
    gram: jax.Array,
    bits: jax.Array,
    *,
    grids: fixed_grid.Grids,
    view: fed.Matrices,
    settings: Settings,
) -> tuple[jax.Array, dict[str, Any]]:
    """Returns a leaf on its grid, and its state. One compilation serves equal shapes.

    Args:
      w: the leaf; a weight that is 0 stays 0.
      gram: float32 `[..., n, n]`.
      bits: of the grid, int32.
      grids: of the leaf, without the bits.
      view: how the leaf is seen as `[..., n, outputs]`.
      settings: of the method.
    """
    grids, inputs = grids._replace(bits=bits), gram.shape[-1]
    by_activation = settings.order == "activation"
    moving = bool(grids.group) and not by_activation
    turn = grids.group // view.among if moving else 1
    start = grids.of(w)

    def choose(first, rows, chosen, diagonal):
        """Returns the grids of a group, given its weights as they are now."""
        del first, diagonal
        if not moving:
            return chosen
        kept = jnp.where(chosen["mask"], rows, 0).astype(w.dtype)
        found = grids.over(kept.reshape(grids.group, -1), (0,))
        spread = {
            k: jnp.broadcast_to(x, (grids.group, x.shape[-1])).reshape(rows.shape)
            for k, x in (("scale", found.scale), ("zero", found.zero_point))
        }
        return {**chosen, **spread}

    def settle(row, chosen):
        grid = numerics.Grid(chosen["scale"], chosen["zero"], start.low, start.high)
        return jnp.where(chosen["mask"], numerics.fake_quant(row, grid), 0)

    def one(w, gram, chosen):
        by = jnp.arange(inputs)
        if by_activation:
            by = jnp.argsort(-jnp.diagonal(gram))
            w, gram, chosen = jax.tree.map(lambda x: x[by], (w, gram[:, by], chosen))
        found = surgeon.compensate(
            w,
            gram,
            chosen,
            choose,
            settle,
            size=-(-min(settings.block, inputs) // turn) * turn,
            group=turn,
            dampening=settings.dampening,
        )
        back = jnp.argsort(by)
        return jax.tree.map(lambda x: x[back], found) if by_activation else found

    for _ in gram.shape[:-2]:
        one = jax.vmap(one)
    chosen = {
        "mask": view.split(w != 0),
        "scale": view.split(grids.spread(start.scale, w)),
        "zero": view.split(grids.spread(start.zero_point, w)),
    }
    found, chosen = one(view.split(w).astype(jnp.float32), gram, chosen)
    scale, zero = start.scale, start.zero_point
    if moving:  # alike along each group
        scale, zero = (
            grids.seen(view.join(chosen[k]))[:, :1] for k in ("scale", "zero")
        )
    return view.join(found).astype(w.dtype), grids.state(w, scale, zero)


def gptq(
    *,
    bits: int | jax.Array,
    grams: Mapping[str, Any],
    symmetric: bool = True,
    granularity: str = "channel",
    group: int = 0,
    dampening: float = 0.01,
    order: str = "natural",
    range: str = "max",
    block: int = 128,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Rounds weights at once, for good, such that outputs change little.

    Frantar et al. 2022, arXiv 2210.17323, Algorithm 1: OBQ's update (eq. 2 and 3), all
    outputs together in one order of the inputs, of the reconstruction `min ||x w - x
    w'||^2`. A weight that is 0 stays 0, and what compensation would have made of it is
    handed on, too: prune first, as with `sparsegpt`.

    All leaves are rounded for the inputs that they are given grams of: those of the
    float network, as `experiments/scoring.py` measures them, where the authors feed
    each layer what the rounded ones before it give.

    Dense and convolution kernels, the latter through their patches; of a convolution in
    groups, depthwise ones among them, each group has a Hessian of its own.

    Args:
      bits: 2 to 8; may be traced.
      grams: {path: `x.T @ x`} of the inputs of every leaf that is taken, `[...,
        contraction, contraction]`, as `program.inputs` gives with `program.gram`, the
        leaf seen as `[..., contraction, outputs]` (`fed.matrices`).
      symmetric: zero point 0; else an affine grid.
      granularity: one scale a "tensor", an output "channel" (the last axis), or a
        "group" of `group` neighbours along the contraction of each channel. Scales of
        groups are chosen when the group's turn comes, from its weights as compensated
        by then (section 4, "grouping").
      group: length of a group; 0 unless granularity is "group".
      dampening: added to the Hessian's diagonal, as a share of its mean; above 0.
      order: "natural", or "activation": inputs of the largest second moments first (the
        authors' `act-order`). Groups stay neighbours in the natural order, so that
        their scales are chosen before all else (the authors' `static-groups`).
      range: "max" covers every weight; "mse" the share of least squared error
        (`ranges.least_error`), clipping what is beyond.
      block: inputs in which errors are handed on lazily, at least 1: for speed alone.
      pattern: regular expression over paths of the leaves to round.

    Raises:
      UserError: an argument out of range; at `encode`, a pattern that matches nothing,
        a gram that is missing or does not fit, a leaf that groups do not divide, or a
        float16 leaf.
    """
    grids = fixed_grid.Grids("gptq", bits, symmetric, granularity, group, range)
    grids.check()
    if order not in ORDERS:
        raise errors.UserError(
            f"gptq: unknown order {order!r}; {errors.hint(str(order), ORDERS)}"
        )
    if not dampening > 0:
        raise errors.UserError(f"gptq: dampening is above 0, got {dampening}")
    if block < 1:
        raise errors.UserError(f"gptq: block is at least 1, got {block}")

    def leaf(path: str, w: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        gram, view = fed.gram("gptq", path, w, grams)
        inputs, among = gram.shape[-1], view.among
        if group and order == "natural" and (group % among or inputs * among % group):
            raise errors.UserError(
                f"gptq: groups of {group} cut through the {inputs} inputs of {path}, "
                f"{among} neighbours each, with shape {tuple(w.shape)}; take a "
                f"multiple of {among} that divides, or order='activation'"
            )
        return solve(
            w,
            gram,
            jnp.asarray(bits, jnp.int32),
            grids=grids._replace(bits=0),
            view=view,
            settings=Settings(dampening, order, block),
        )

    how = grids.how(*["order activation"] * (order == "activation"))
    return fixed_grid.transform(grids, how, pattern, leaf)
