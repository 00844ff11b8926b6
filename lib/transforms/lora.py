"""LoRA: a weight and a low-rank change of it, which alone is trained.

`code`: `{"rest", "u", "v"}` at the leaf's path, `state`: none, `decode`:
`rest + alpha / rank * u @ v`. `chain(lora(...), fixed(pattern="rest$"))` holds the
weight still, and `quantize(pattern="rest$")` between the two makes it QLoRA.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations
from lib.transforms import base, ranks
from lib.transforms.factorize import add, multiply


def _times(x, scale: float, xp):
    """Returns `x * scale`, rounded once from float32 to x's dtype; by NumPy or JAX."""
    return (x.astype(xp.float32) * xp.float32(scale)).astype(x.dtype)


def scaled(
    rep: representations.Representation, scale: float
) -> representations.Representation:
    """Returns a representation of `rep` times `scale`, to the last bit.

    The scale goes into the values, centroids or steps of a grid where that is exact
    (for a grid: where the scale is a power of two); else the product is stored Dense.
    """
    if scale == 1:
        return rep
    exact = _times(representations.materialize(rep), scale, np)
    match rep:
        case representations.Sparse(mask, values):
            folded = representations.Sparse(mask, scaled(values, scale))
        case representations.Codebook(centroids=centroids):
            values = scaled(representations.of(centroids), scale)
            if isinstance(values, representations.Dense):
                values = values.values
            folded = dataclasses.replace(rep, centroids=values)
        case (
            representations.Quantized(scale=steps) | representations.Levels(scale=steps)
        ):
            steps = _times(np.asarray(steps), scale, np)
            folded = dataclasses.replace(rep, scale=steps)
        case _:
            return representations.Dense(exact)
    if representations.materialize(folded).tobytes() != exact.tobytes():
        return representations.Dense(exact)
    return folded


def lora(
    *, rank: int, alpha: float, seed: int = 0, pattern: str = base.KERNELS
) -> base.Transform:
    """Adds a low-rank change to each weight, 0 at the start.

    `w = rest + (alpha / rank) * u @ v` with `rest` the weight as it comes, `u` uniform
    in +-1/sqrt(contraction) and `v` 0 (LoRA, Hu et al. 2022, arXiv 2106.09685, eq. 3;
    the distribution is that of the authors' code). Of a convolution `[h, w, in, out]`
    the factors are `[h, w, in, rank]` and `[rank, out]`.

    All three are trained; a later `fixed(pattern="rest$")` leaves the factors. `freeze`
    folds the scale into `u`, as `Sum(rest, LowRank(u, v))`.

    Args:
      rank: of the change, from 1 to the smaller side of each leaf.
      alpha: positive; how far the change goes, as a multiple of `rank`.
      seed: of the factors' first values.
      pattern: regular expression over paths of the leaves to adapt.

    Raises:
      UserError: a rank below 1, an alpha that is not positive; at `encode`, a pattern
        that matches nothing, a leaf that is no matrix or smaller than the rank.
    """
    ranks.whole(rank, "lora: rank", least=1)
    ranks.whole(seed, "lora: seed")
    if not 0 < alpha < math.inf:
        raise errors.UserError(f"lora: alpha is positive, got {alpha}")
    scale = alpha / rank

    def encode(weights):
        codes = {}
        paths = sorted(weights)  # jit sorts the keys of dicts; the keys go by place
        keys = base.keys(jax.random.key(seed), len(paths))
        for path, key in zip(paths, keys, strict=True):
            w = weights[path]
            rows, columns = ranks.matrix(path, w, "lora")
            if rank > min(rows, columns):
                raise errors.UserError(
                    f"lora: rank {rank} of {path} with shape {tuple(w.shape)}: at "
                    f"most {min(rows, columns)}, its smaller side"
                )
            bound = 1 / math.sqrt(rows)
            shape = (*w.shape[:-1], rank)
            u = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
            v = jnp.zeros((rank, columns), w.dtype)
            codes[path] = {"rest": w, "u": u.astype(w.dtype), "v": v}
        return codes, dict.fromkeys(codes, ())

    def decode_leaf(code):
        u = _times(code["u"], scale, jnp)
        return add(code["rest"], multiply(u, code["v"]))

    def decode(codes, states):
        del states
        return {path: decode_leaf(code) for path, code in codes.items()}

    def freeze_leaf(below):
        low = representations.LowRank(scaled(below["u"], scale), below["v"])
        return representations.Sum(below["rest"], low)

    def freeze(leaves, states):
        del states
        return {path: freeze_leaf(below) for path, below in leaves.items()}

    how = f"lora(rank={rank}, alpha={alpha})"
    return base.on_leaves(how, pattern, encode, decode, freeze)
