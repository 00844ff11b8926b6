"""SparseGPT: what is removed is made up for by the weights that stay.

`code`: the compensated weights, `state`: a mask a leaf (bool, True = keep), which never
moves, `decode`: the weights where the mask keeps them, else 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lib import errors
from lib.transforms import base, distributions, fed, masked, selection, shapes, surgeon


def solve(
    w: jax.Array, gram: jax.Array, *, removed, size: int, group: int, dampening: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the compensated weights and their mask (Algorithm 1 of 2301.00774).

    Inputs are gone through in order. At the start of each group the mask of its rows is
    chosen by the error that each removal makes now, `w**2 / u_jj**2`; each row that is
    done hands its error on to the rows after it. Ours are the paper's transposed:
    `[inputs, outputs]`.

    Args:
      w: float32 `[n, outputs]`. A weight that is 0 stays 0.
      gram: float32 `[n, n]`.
      removed: (first row, end) -> how many weights go among these rows, int32; or an
        int: how many of each output go in each group.
      size: rows in which errors are handed on lazily; a multiple of `group`.
      group: rows whose mask is chosen at once.
      dampening: see `surgeon.factor`.
    """
    n = len(w)

    def choose(first, rows, kept, diagonal):
        """Returns the mask of a group, given its weights as they are now."""
        score = jnp.where(kept, jnp.square(rows / diagonal[:, None]), -1)
        if not callable(removed):
            return selection.keep_in_groups(score, removed, group) & kept
        here = first + jnp.arange(group)
        score = jnp.where((here < n)[:, None], score, jnp.inf)
        end = jnp.minimum(first + group, n)
        return selection.keep_all_but([score], removed(first, end))[0] & kept

    def settle(row, kept):
        return jnp.where(kept, row, 0)

    return surgeon.compensate(
        w,
        gram,
        w != 0,
        choose,
        settle,
        size=size,
        group=group,
        dampening=dampening,
    )


def sparsegpt(
    *,
    sparsity: float | jax.Array | None = None,
    grams: Mapping[str, Any],
    dampening: float = 0.01,
    block: int = 128,
    shape: str = "unstructured",
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Prunes at once and adjusts the rest, so that outputs change little.

    Frantar & Alistarh 2023, arXiv 2301.00774: the OBS reconstruction of each output's
    weights for its inputs x, `min ||x w - x w'||`, in one pass over the inputs, with a
    mask chosen on the way (section 3.3). Exactly `round(sparsity * size)` weights of
    each leaf go, block by block of inputs, all outputs ranked together; or N of every M
    neighbouring inputs of each output stay. Inputs are those of the contraction: of an
    attention projection `[in, heads, head]` the first axis alone.

    Args:
      sparsity: fraction removed, in [0, 1]; may be traced. Of shape "N:M" it is
        1 - N/M, also if None.
      grams: {path: `x.T @ x`} of the inputs of every leaf that is taken, `[...,
        contraction, contraction]`, as `program.inputs` gives with `program.gram`, the
        leaf seen as `[..., contraction, outputs]` (`fed.matrices`).
      dampening: added to the Hessian's diagonal, as a share of its mean; above 0.
      block: inputs whose mask is chosen at once (128 in the paper), at least 1; of
        "N:M" a multiple of M.
      shape: "unstructured", or "N:M" as "2:4".
      pattern: regular expression over paths of the leaves to prune.

    Raises:
      UserError: an argument out of range; at `encode`, a pattern that matches nothing,
        a gram that is missing or does not fit, inputs that groups of M do not divide.
    """
    cut = shapes.parse(shape)
    kind = shape.partition(":")
    if shape != "unstructured" and not kind[1]:
        raise errors.UserError(
            f"sparsegpt: shape is 'unstructured' or 'N:M' as '2:4', got {shape!r}"
        )
    n_kept, m = (int(kind[0]), int(kind[2])) if kind[1] else (0, 0)
    if sparsity is None and m:
        sparsity = cut.most
    traced = isinstance(sparsity, jax.core.Tracer)
    if not traced and (
        sparsity is None or callable(sparsity) or not 0 <= sparsity <= 1
    ):
        raise errors.UserError(
            f"sparsegpt: sparsity is the fraction removed, from 0 to 1, got {sparsity}"
        )
    if m and (traced or round(sparsity * m, 6) != m - n_kept):
        raise errors.UserError(
            f"sparsegpt: shape {shape!r} removes {cut.most:.4g}; got sparsity "
            f"{sparsity}"
        )
    if not dampening > 0:
        raise errors.UserError(f"sparsegpt: dampening is above 0, got {dampening}")
    if block < 1 or (m and block % m):
        of = f", a multiple of {m}" if m else ""
        raise errors.UserError(f"sparsegpt: block is at least 1{of}, got {block}")

    def leaf(path: str, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        gram, view = fed.gram("sparsegpt", path, w, grams)
        seen = view.split(w)
        inputs, outputs = seen.shape[-2:]
        if m and inputs % m:
            raise errors.UserError(
                f"sparsegpt: groups of {m} do not divide the {inputs} inputs of {path} "
                f"with shape {tuple(w.shape)}"
            )

        def total(end):
            """How many weights of the first rows go: in the end, the whole count."""
            share = jnp.asarray(end * outputs, jnp.float32) * jnp.float32(sparsity)
            whole = distributions.count(sparsity, inputs * outputs)
            return jnp.where(
                end == inputs, whole, jnp.minimum(jnp.rint(share).astype(int), whole)
            )

        def between(first, end):
            return total(end) - total(first)

        def one(w, gram):
            return solve(
                w,
                gram,
                removed=m - n_kept if m else between,
                size=min(block, inputs),
                group=m or min(block, inputs),
                dampening=dampening,
            )

        for _ in gram.shape[:-2]:
            one = jax.vmap(one)
        found, mask = one(seen.astype(jnp.float32), gram)
        mask, found = view.join(mask), view.join(found).astype(w.dtype)
        return jnp.where(mask, found, jnp.zeros((), w.dtype)), mask

    def encode(weights):
        found = {path: leaf(path, w) for path, w in weights.items()}
        return {p: w for p, (w, _) in found.items()}, {
            p: mask for p, (_, mask) in found.items()
        }

    return base.on_leaves(
        f"sparsegpt(sparsity={sparsity}, {shape})",
        pattern,
        encode,
        masked.decode,
        masked.freeze,
    )
