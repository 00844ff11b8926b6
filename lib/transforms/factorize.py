"""Low rank: a weight is trained and stored as the product of two thin factors.

`code`: `{"u", "v"}` at the leaf's path, `state`: none, `decode`: `u @ v`. Later
techniques see the factors as leaves of their own, so they prune, share or round them.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, representations
from lib.transforms import base, ranks

# Added to a gram's diagonal, as a share of its mean: inputs that never vary, or vary
# together, leave it singular. Any amount keeps the promise of `factorize`.
_DAMPENING = 1e-6


def multiply(u: jax.Array, v: jax.Array) -> jax.Array:
    """Returns `u @ v`, `[..., rank] @ [rank, out]`, to the bit as `materialize` does.

    The barriers keep what stands around it out: a sum that would start from the
    addend, a bfloat16 factor that would stay in float32.
    """
    u, v = lax.optimization_barrier((u, v))
    return lax.optimization_barrier(u @ v)


def add(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns `x + y` of finite numbers, to the bit as if both were stored first.

    A processor may fuse the last multiplication inside `x` or `y` (a scale's, or that
    of rank 1) with the sum, and round once instead of twice. Through a clip at the
    largest number, which changes nothing, it cannot; a barrier is gone by then.
    """
    return _rounded(x) + _rounded(y)


def _rounded(x: jax.Array) -> jax.Array:
    most = jnp.finfo(x.dtype).max
    return numerics.straight_through(x, jnp.clip(lax.stop_gradient(x), -most, most))


def whitening(path: str, gram: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `l.T` and its inverse, float32 `[size, size]`, with `gram ~ l @ l.T`.

    `||x @ e|| = ||l.T @ e||` for all errors `e`, where `gram = x.T @ x` (Wang et al.
    2024, arXiv 2403.07378, section 3.1).

    Raises:
      UserError: the gram has another shape, or is no gram.
    """
    gram = np.asarray(gram, np.float64)
    if gram.shape != (size, size):
        raise errors.UserError(
            f"factorize: the gram of {path} has shape {gram.shape}, expected "
            f"{(size, size)}: one row and column for each input"
        )
    mean = np.trace(gram) / size
    try:
        if not np.isfinite(gram).all() or mean < 0:
            raise np.linalg.LinAlgError
        dampened = gram / (mean or 1.0) + (_DAMPENING if mean else 1.0) * np.eye(size)
        lower = np.linalg.cholesky(dampened)
    except np.linalg.LinAlgError:
        raise errors.UserError(
            f"factorize: the gram of {path} is not x.T @ x of any inputs x"
        ) from None
    return lower.T.astype(np.float32), np.linalg.inv(lower.T).astype(np.float32)


def svd(w: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns u `[c, r]`, s `[r]` and v `[r, o]` of a matrix `[c, o]`, in float32."""
    return jnp.linalg.svd(w.astype(jnp.float32), full_matrices=False)


def split(u: jax.Array, s: jax.Array, v: jax.Array, rank: int):
    """Returns the factors of the first `rank` singular values, shared evenly."""
    root = jnp.sqrt(s[:rank])
    return u[:, :rank] * root[None, :], root[:, None] * v[:rank]


def factorize(
    *,
    rank: int = 0,
    energy: float = 0.0,
    budget: float = 0.0,
    grams: Mapping[str, np.ndarray] | None = None,
    residual: bool = False,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Replaces weights by a product of two factors, from a truncated SVD.

    The best approximation of its rank in the Frobenius norm (Eckart & Young 1936), of
    the kernel seen as `[contraction, out]`. Of a convolution `[h, w, in, out]` the
    factors are `[h, w, in, rank]` and `[rank, out]` (Denton et al. 2014, 1404.0736).
    The singular values are split evenly between the factors.

    With `grams` the best for the inputs instead (SVD-LLM, Wang et al. 2024, arXiv
    2403.07378): it minimises `||x (w - u v)||`, and energies are those of `x w`.

    With `residual` nothing is lost: `w = u @ v + rest`, and a later technique with
    the pattern "rest$" makes little of the rest, as in low rank plus sparse.

    Give one of `rank`, `energy` and `budget`; 0 is not given. With the last two,
    `encode` reads the values and cannot be jitted, and a leaf that would gain weights
    stays whole.

    Args:
      rank: columns of `u`, of each leaf, from 1 to the largest rank that pays.
      energy: share of each leaf's squared singular values to keep, in (0, 1]; the
        smallest rank that does is taken.
      budget: share in (0, 1] of the weights of all leaves together that the factors
        may hold, spent where it keeps most energy a weight.
      grams: {path: `x.T @ x`, `[contraction, contraction]`} of the inputs x of every
        leaf that is taken.
      residual: train `rest` too; not with a budget.
      pattern: regular expression over paths of the leaves to factorize.

    Raises:
      UserError: not one of the three, or one out of range; at `encode`, a pattern
        that matches nothing, a leaf that is no matrix, a rank at which the factors
        hold more than the leaf, a budget too small for rank 1 of every leaf, a gram
        that is missing or does not fit.
    """
    ranks.whole(rank, "factorize: rank")
    ranks.share(energy, "factorize: energy")
    ranks.share(budget, "factorize: budget")
    given = {"rank": rank, "energy": energy, "budget": budget}
    given = {name: value for name, value in given.items() if value}
    if len(given) != 1:
        raise errors.UserError(
            "factorize: give one of rank, energy and budget, got "
            f"{', '.join(f'{k}={v}' for k, v in given.items()) or 'none'}"
        )
    if residual and budget:
        raise errors.UserError(
            "factorize: a budget counts the factors only; with residual=True give a "
            "rank or an energy"
        )

    def most(path: str, w) -> int:
        rows, columns = ranks.matrix(path, w, "factorize")
        return min(rows, columns) if residual else ranks.largest(rows, columns)

    def check(weights) -> None:
        for path, w in weights.items():
            limit = most(path, w)
            if rank > limit and w.size:
                why = "is above its smaller side" if residual else "holds more weights"
                raise errors.UserError(
                    f"factorize: rank {rank} of {path} with shape {tuple(w.shape)} "
                    f"{why}; at most {limit}, so lower it or aim by pattern"
                )

    def choose(weights, values) -> ranks.Ranks:
        """Returns {path: rank}; only `energy` and `budget` read the values."""
        if rank:
            return dict.fromkeys(values, rank)
        energies = {p: np.asarray(s, np.float64) ** 2 for p, s in values.items()}
        if energy:
            found = {p: ranks.by_energy(e, energy) for p, e in energies.items()}
            return {
                p: r if r <= most(p, weights[p]) else None for p, r in found.items()
            }
        shapes = {p: ranks.matrix(p, weights[p], "factorize") for p in energies}
        return ranks.by_budget(energies, shapes, budget)

    def encode(weights):
        check(weights)
        white, parts = {}, {}
        for path, w in weights.items():
            if not w.size:
                continue
            seen = w.reshape(-1, w.shape[-1]).astype(jnp.float32)
            if grams is not None:
                gram = errors.lookup(grams, path, "gram of a weight")
                white[path] = whitening(path, gram, seen.shape[0])
                seen = white[path][0] @ seen
            parts[path] = svd(seen)
        chosen = choose(weights, {path: s for path, (_, s, _) in parts.items()})
        codes = dict(weights)
        for path, r in chosen.items():
            if r is None:
                continue
            w, found = weights[path], parts[path]
            if path in white:  # back to the weight's own space, and even again
                u, v = split(*found, r)
                found = svd(white[path][1] @ u @ v)
            u, v = (x.astype(w.dtype) for x in split(*found, r))
            u = u.reshape(*w.shape[:-1], r)
            codes[path] = {"u": u, "v": v}
            if residual:
                codes[path]["rest"] = w - multiply(u, v)
        return codes, dict.fromkeys(weights, ())

    def decode_leaf(code):
        if not isinstance(code, Mapping):
            return code
        low = multiply(code["u"], code["v"])
        return add(low, code["rest"]) if residual else low

    def decode(codes, states):
        del states
        return {path: decode_leaf(code) for path, code in codes.items()}

    def freeze_leaf(below):
        if isinstance(below, representations.Representation):
            return below
        low = representations.LowRank(below["u"], below["v"])
        return representations.Sum(low, below["rest"]) if residual else low

    def freeze(leaves, states):
        del states
        return {path: freeze_leaf(below) for path, below in leaves.items()}

    def outline(weights):
        """Returns the shapes at the largest rank that pays; whole where none does."""
        check(weights)
        codes = dict(weights)
        for path, w in weights.items():
            r = most(path, w)
            if not r:
                continue
            shapes = {"u": (*w.shape[:-1], r), "v": (r, w.shape[-1])}
            if residual:
                shapes["rest"] = w.shape
            codes[path] = {
                name: jax.ShapeDtypeStruct(shape, w.dtype)
                for name, shape in shapes.items()
            }
        return codes

    settings = [f"{name}={value}" for name, value in given.items()]
    settings += ["weighted"] * (grams is not None) + ["residual"] * residual
    return base.on_leaves(
        f"factorize({', '.join(settings)})",
        pattern,
        encode,
        decode,
        freeze,
        outline=None if rank else outline,
    )
