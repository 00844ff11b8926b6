"""Product quantization: short vectors of weights share few values each.

`code`: the codebook of a leaf `[k, dim]`, `state`: which entry each sub-vector is,
`decode`: a gather, whose derivative sums the gradients of the sub-vectors that share an
entry. One codebook for all sub-vectors of a leaf, as in Stock et al. 2019 (arXiv
1907.05686, section 3.1; k-means over weights, eq. 1); the idea is Jegou et al. 2011 and
Gong et al. 2014 (arXiv 1412.6115, section 3.3).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations
from lib.transforms import base, kmeans
from lib.transforms.share import check_bits, index_dtype


@functools.partial(jax.jit, static_argnames="bits")
def _cluster(vectors, key, iterations, *, bits: int):
    """Returns (codebook [k, dim], indices [n]) of vectors [n, dim]."""
    centroids = kmeans.vectors(
        vectors, key, clusters=min(2**bits, len(vectors)), iterations=iterations
    )
    indices = kmeans.nearest_vectors(vectors, centroids)
    return centroids.astype(vectors.dtype), indices.astype(index_dtype(bits))


def product(
    *,
    dim: int,
    bits: int,
    iterations: int = 25,
    seed: int = 0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Shares at most `2**bits` vectors of `dim` weights each, found by k-means.

    The contraction axis (all axes but the last, flattened) of each output is cut in
    vectors of `dim` neighbours: `bits / dim` bits a weight, and the codebook. All of
    the codebook is trained; which vectors share an entry is settled at `encode`.

    Zeros of the weights it is given are values like any other: prune before it, at
    once or with `keep`, and the mask sees to it that they stay.

    Args:
      dim: weights a vector, at least 1; divides the contraction axis of every leaf.
      bits: of an index, 1 to 16; not traced.
      iterations: the most steps of k-means, at least 0.
      seed: of its start, k-means++.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: dim below 1, bits outside 1..16, negative iterations; at `encode`, a
        pattern that matches nothing, or a leaf that `dim` does not divide.
    """
    check_bits(bits, "product")
    if dim < 1:
        raise errors.UserError(f"product: dim is at least 1, got {dim}")
    if iterations < 0:
        raise errors.UserError(f"product: iterations is at least 0, got {iterations}")

    def check(weights: base.Leaves) -> None:
        for path, w in weights.items():
            inputs = int(np.prod(w.shape[:-1]))
            if inputs % dim:
                raise errors.UserError(
                    f"product: vectors of {dim} do not divide the {inputs} inputs of "
                    f"{path} with shape {tuple(w.shape)}"
                )

    def encode(weights):
        check(weights)
        codes, states = {}, {}
        for path, w in weights.items():
            seen = jnp.swapaxes(w.reshape(-1, dim, w.shape[-1]), 1, 2)
            codes[path], indices = _cluster(
                seen.reshape(-1, dim), jax.random.key(seed), iterations, bits=bits
            )
            indices = indices.reshape(seen.shape[:2])
            # Of no element: only its shape says how the weight is laid out.
            inputs = jnp.zeros((*w.shape[:-1], 0), jnp.uint8)
            states[path] = {"indices": indices, "inputs": inputs}
        return codes, states

    def shape(state) -> tuple[int, ...]:
        return (*state["inputs"].shape[:-1], state["indices"].shape[-1])

    def decode(codes, states):
        return {
            p: jnp.swapaxes(codes[p][s["indices"]], 1, 2).reshape(shape(s))
            for p, s in states.items()
        }

    def freeze(leaves, states):
        frozen = {}
        for path, state in states.items():
            table, indices = leaves[path], np.asarray(state["indices"])
            if isinstance(table, representations.Dense):
                table = np.asarray(table.values)
            frozen[path] = representations.Codebook(indices, table, shape(state))
        return frozen

    return base.on_leaves(
        f"product(dim={dim}, bits={bits})", pattern, encode, decode, freeze
    )
