"""CP: a convolution as a sum of outer products, one vector for each of its axes.

`code`: `{"height", "width", "first", "last"}` at the leaf's path, `state`: none,
`decode`: their product, summed over the rank.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors, representations
from lib.transforms import base, ranks
from lib.transforms.factorize import multiply
from lib.transforms.tucker import check_convolution, spectrum

# Pull of the previous sweep, as a share of a gram's mean diagonal: columns that grow
# alike leave the gram singular. It vanishes at a solution, so it does not bias one.
_PULL = 1e-5


def compose(
    height: jax.Array, width: jax.Array, first: jax.Array, last: jax.Array
) -> jax.Array:
    """Returns the kernel `[h, w, in, out]`, to the bit as `materialize` does."""
    # As `representations.cp_inner`, each product rounded before the next.
    planes = lax.optimization_barrier(height[:, None, :] * width[None, :, :])
    return multiply(planes[:, :, None, :] * first[None, None, :, :], last)


def _axis(w: jax.Array, factors: list[jax.Array], axis: int) -> jax.Array:
    """Returns the factor of one axis that fits best, `[n, rank]`, the others fixed."""
    letters = "hwio"
    others = [i for i in range(4) if i != axis]
    terms = ",".join(f"{letters[i]}r" for i in others)
    seen = jnp.einsum(
        f"{letters},{terms}->{letters[axis]}r", w, *(factors[i] for i in others)
    )
    gram = math.prod(factors[i].T @ factors[i] for i in others)
    rank = gram.shape[0]
    # The smallest normal number, where all is 0.
    pull = _PULL * jnp.trace(gram) / rank + jnp.finfo(jnp.float32).tiny
    wide = gram + pull * jnp.eye(rank)
    return jnp.linalg.solve(wide, (seen + pull * factors[axis]).T).T


@functools.partial(jax.jit, static_argnames="rank")
def fit(w: jax.Array, *, rank: int, iterations: int | jax.Array) -> list[jax.Array]:
    """Returns the factors `[h, r]`, `[w, r]`, `[in, r]` and `[out, r]` of a kernel.

    Alternating least squares from the leading directions of each side: every update
    solves for one factor, so the error never grows. Norms are split evenly. `w` is
    float32.
    """
    keys = base.keys(jax.random.key(0), 4)
    factors = []
    for axis, key in enumerate(keys):
        directions = spectrum(w, axis)[1][:, :rank]
        # A side shorter than the rank has no more directions of its own.
        more = (w.shape[axis], rank - directions.shape[1])
        factors.append(
            jnp.concatenate([directions, jax.random.normal(key, more)], axis=1)
        )

    def sweep(_, factors):
        for axis in range(4):
            factors = [*factors]
            factors[axis] = _axis(w, factors, axis)
            if axis < 3:  # the last keeps the size
                norm = jnp.linalg.norm(factors[axis], axis=0)
                unit = factors[axis] / jnp.where(norm > 0, norm, 1)[None, :]
                factors[axis] = unit
        return factors

    factors = lax.fori_loop(0, iterations, sweep, factors)
    norms = [jnp.linalg.norm(x, axis=0) for x in factors]
    even = math.prod(jnp.sqrt(jnp.sqrt(norm)) for norm in norms)
    return [
        x * (even / jnp.where(norm > 0, norm, 1))[None, :]
        for x, norm in zip(factors, norms, strict=True)
    ]


def cp(*, rank: int, iterations: int, pattern: str = base.KERNELS) -> base.Transform:
    """Replaces convolutions by four: 1x1, along the height, along the width, 1x1.

    `w[h, w, i, o] = sum_r height[h, r] width[w, r] first[i, r] last[r, o]` (Lebedev et
    al. 2015, arXiv 1412.6553, eq. 3), found by alternating least squares. It is one
    local optimum: a good rank-r CP is hard to find, and may not exist.

    Args:
      rank: r of each leaf, from 1 to the largest that pays.
      iterations: sweeps over the four factors, from 1; hundreds are usual.
      pattern: regular expression over paths of the leaves to factorize.

    Raises:
      UserError: a rank or iterations below 1; at `encode`, a pattern that matches
        nothing, a leaf without four axes, or a rank at which the factors hold more
        than the leaf.
    """
    ranks.whole(rank, "cp: rank", least=1)
    ranks.whole(iterations, "cp: iterations", least=1)

    def encode(weights):
        codes = {}
        for path, w in weights.items():
            check_convolution(path, w, "cp")
            limit = math.prod(w.shape) // max(sum(w.shape), 1)
            if rank > limit:
                raise errors.UserError(
                    f"cp: rank {rank} of {path} with shape {tuple(w.shape)} holds more "
                    f"weights than the leaf; at most {limit} pays, so lower it or aim "
                    "by pattern"
                )
            parts = fit(w.astype(jnp.float32), rank=rank, iterations=iterations)
            height, width, first, last = (x.astype(w.dtype) for x in parts)
            codes[path] = {
                "height": height,
                "width": width,
                "first": first,
                "last": last.T,
            }
        return codes, dict.fromkeys(weights, ())

    def decode(codes, states):
        del states
        return {path: compose(**code) for path, code in codes.items()}

    def freeze(leaves, states):
        del states
        return {path: representations.CP(**below) for path, below in leaves.items()}

    return base.on_leaves(f"cp(rank={rank})", pattern, encode, decode, freeze)
