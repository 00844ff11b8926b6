"""SparseGPT: what is removed is made up for by the weights that stay.

`code`: the compensated weights, `state`: a mask a leaf (bool, True = keep), which never
moves, `decode`: the weights where the mask keeps them, else 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors
from lib.transforms import base, distributions, masked, saliency, selection, shapes


def factor(gram: jax.Array, dampening: float) -> jax.Array:
    """Returns the upper triangular u, `u.T @ u` the inverse of the dampened Hessian.

    The Hessian is the gram plus `dampening` times the mean of its diagonal. Row j of u
    is, up to its scale, row j of the inverse Hessian of the inputs from j on (Frantar
    et al. 2023, arXiv 2301.00774, section 3.3), found without inverting the whole: H =
    r r.T with r upper triangular gives u = inverse(r).

    Args:
      gram: `x.T @ x`, `[n, n]`; all zeros count as the identity.
      dampening: at least 0.
    """
    mean = jnp.mean(jnp.diagonal(gram))
    eye = jnp.eye(gram.shape[0], dtype=gram.dtype)
    # Only the ratio matters, so the scale is taken out before it can overflow.
    hessian = gram / jnp.where(mean > 0, mean, 1)
    hessian = hessian + jnp.where(mean > 0, dampening, 1) * eye
    lower = jnp.linalg.cholesky(hessian[::-1, ::-1])  # of what is read from its end
    upper = lower[::-1, ::-1]
    return jax.scipy.linalg.solve_triangular(upper, eye, lower=False)


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
      dampening: see `factor`.
    """
    n, outputs = w.shape
    blocks = -(-n // size)
    pad = blocks * size - n
    # Rows that are added meet no other row; they are never counted nor handed on.
    u = jnp.pad(factor(gram, dampening), ((0, pad), (0, pad)))
    u = u + jnp.diag((jnp.arange(n + pad) >= n).astype(u.dtype))
    w = jnp.pad(w, ((0, pad), (0, 0)))
    kept = w != 0
    diagonal = jnp.diagonal(u)
    place = jnp.arange(n + pad)

    def choose(rows, alive, first):
        """Returns the mask of a group, given its weights as they are now."""
        scale = lax.dynamic_slice_in_dim(diagonal, first, group)
        score = jnp.where(alive, jnp.square(rows / scale[:, None]), -1)
        if not callable(removed):
            return selection.keep_in_groups(score, removed, group)
        here = lax.dynamic_slice_in_dim(place, first, group)
        score = jnp.where((here < n)[:, None], score, jnp.inf)
        end = jnp.minimum(first + group, n)
        return selection.keep_all_but([score], removed(first, end))[0]

    def block(b, carried):
        w, kept = carried
        start = b * size
        rows = lax.dynamic_slice_in_dim(w, start, size)
        mask = lax.dynamic_slice_in_dim(kept, start, size)
        factors = lax.dynamic_slice_in_dim(u, start, size)
        inside = lax.dynamic_slice_in_dim(factors, start, size, axis=1)

        def turn(j, carried):
            rows, mask, errors_ = carried

            def pick(mask):
                first = j // group * group
                alive = lax.dynamic_slice_in_dim(mask, first, group)
                now = lax.dynamic_slice_in_dim(rows, first, group)
                new = choose(now, alive, start + first) & alive
                return lax.dynamic_update_slice_in_dim(mask, new, first, 0)

            mask = lax.cond(j % group == 0, pick, lambda m: m, mask)
            row = rows[j]
            error = jnp.where(mask[j], 0, row) / inside[j, j]
            after = jnp.where(jnp.arange(size) > j, inside[j], 0)
            rows = rows - after[:, None] * error[None, :]
            rows = rows.at[j].set(jnp.where(mask[j], row, 0))
            return rows, mask, errors_.at[j].set(error)

        start_errors = jnp.zeros((size, outputs), w.dtype)
        rows, mask, handed = lax.fori_loop(0, size, turn, (rows, mask, start_errors))
        later = jnp.where((place >= start + size)[None, :], factors, 0)
        w = w - jnp.matmul(later.T, handed, precision=lax.Precision.HIGHEST)
        w = lax.dynamic_update_slice_in_dim(w, rows, start, 0)
        return w, lax.dynamic_update_slice_in_dim(kept, mask, start, 0)

    w, kept = lax.fori_loop(0, blocks, block, (w, kept))
    return jnp.where(kept, w, 0)[:n], kept[:n]


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
        leaf seen as `[..., contraction, outputs]`.
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
        gram = jnp.asarray(errors.lookup(grams, path, "gram of a weight"), jnp.float32)
        if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2]:
            raise errors.UserError(
                f"sparsegpt: the gram of {path} is square, got shape {gram.shape}"
            )
        seen = saliency.as_matrices(path, w, gram.shape[:-1], "sparsegpt: grams")
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
        mask = mask.reshape(w.shape)
        found = found.reshape(w.shape).astype(w.dtype)
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
