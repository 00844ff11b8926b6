"""Optimal Brain Surgeon, input by input: what one row loses, the later rows make up.

Shared by SparseGPT, which sets weights to 0, and GPTQ, which moves them to a grid.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


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


def compensate(
    w: jax.Array,
    gram: jax.Array,
    choice: Any,
    choose: Callable[[jax.Array, jax.Array, Any, jax.Array], Any],
    settle: Callable[[jax.Array, Any], jax.Array],
    *,
    size: int,
    group: int,
    dampening: float,
) -> tuple[jax.Array, Any]:
    """Returns the settled weights and what was chosen for them.

    Rows are gone through in order (Algorithm 1 of arXiv 2210.17323 and of 2301.00774;
    ours are the papers' transposed). At the start of each group of rows `choose` sees
    them as they are now, every earlier error handed on. Each row is then settled, and
    hands `(row - settled) / u_jj` on to the rows after it.

    Args:
      w: float32 `[n, outputs]`.
      gram: float32 `[n, n]`.
      choice: arrays `[n, ...]`: what is chosen for each row, before it is.
      choose: (number of the group's first row, its rows `[group, outputs]`, their
        choice, their `u_jj` `[group]`) -> their choice. The last group's rows may go
        beyond n; these are 0.
      settle: (row `[outputs]`, its choice) -> what becomes of it.
      size: rows in which errors are handed on lazily, a multiple of `group`; it changes
        the speed alone.
      group: rows for which `choose` chooses at once.
      dampening: see `factor`.
    """
    n, outputs = w.shape
    blocks = -(-n // size)
    pad = blocks * size - n
    # Rows that are added meet no other row.
    u = jnp.pad(factor(gram, dampening), ((0, pad), (0, pad)))
    u = u + jnp.diag((jnp.arange(n + pad) >= n).astype(u.dtype))
    w = jnp.pad(w, ((0, pad), (0, 0)))
    choice = jax.tree.map(
        lambda x: jnp.pad(x, ((0, pad), *((0, 0),) * (x.ndim - 1)), mode="edge"), choice
    )
    diagonal = jnp.diagonal(u)
    place = jnp.arange(n + pad)

    def cut(x, start, length):
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), x)

    def paste(x, new, start):
        return jax.tree.map(
            lambda x, new: lax.dynamic_update_slice_in_dim(x, new, start, 0), x, new
        )

    def block(b, carried):
        w, choice = carried
        start = b * size
        factors = cut(u, start, size)
        inside = lax.dynamic_slice_in_dim(factors, start, size, axis=1)

        def turn(j, carried):
            rows, chosen, handed = carried

            def pick(chosen):
                first = j // group * group
                new = choose(
                    start + first,
                    cut(rows, first, group),
                    cut(chosen, first, group),
                    cut(diagonal, start + first, group),
                )
                return paste(chosen, new, first)

            chosen = lax.cond(j % group == 0, pick, lambda c: c, chosen)
            row = rows[j]
            settled = settle(row, jax.tree.map(lambda x: x[j], chosen))
            error = (row - settled) / inside[j, j]
            after = jnp.where(jnp.arange(size) > j, inside[j], 0)
            rows = rows - after[:, None] * error[None, :]
            return rows.at[j].set(settled), chosen, handed.at[j].set(error)

        begin = cut((w, choice), start, size)
        begin = (*begin, jnp.zeros((size, outputs), w.dtype))
        rows, chosen, handed = lax.fori_loop(0, size, turn, begin)
        later = jnp.where((place >= start + size)[None, :], factors, 0)
        w = w - jnp.matmul(later.T, handed, precision=lax.Precision.HIGHEST)
        return paste((w, choice), (rows, chosen), start)

    return cut(lax.fori_loop(0, blocks, block, (w, choice)), 0, n)
