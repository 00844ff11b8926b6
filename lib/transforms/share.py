"""Weight sharing: a weight is one of few values, and it is those that are trained.

`code`: the centroids of a leaf `[k]`, `state`: which of them each weight is, `decode`:
a gather, whose derivative sums the gradients of the weights that share a value (Han
et al. 2016, Deep Compression, arXiv 1510.00149, section 3.3).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations
from lib.transforms import base, kmeans

BITS = (1, 16)  # the fewest and the most bits of an index
SCOPES = ("leaf", "global")


def check_bits(bits: int, where: str) -> None:
    """Raises a `UserError` unless `bits` is a whole number in `BITS`, not traced."""
    least, most = BITS
    whole = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if not whole or not least <= bits <= most:
        raise errors.UserError(
            f"{where}: bits is a whole number from {least} to {most}, got {bits}: it "
            "sets the length of the codebook, so that it cannot be traced or scheduled"
        )


def index_dtype(bits: int) -> type:
    """Returns the unsigned integers that hold an index of `bits` bits."""
    return np.uint8 if bits <= 8 else np.uint16


@functools.partial(jax.jit, static_argnames=("most", "start"))
def cluster(
    values: jax.Array,
    count: jax.Array | int,
    key: jax.Array,
    iterations: int,
    *,
    most: int,
    start: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (centroids [k], indices [n], whether the first centroid is a kept 0).

    Args:
      values: `[n]` float.
      count: how many values may be left, 0 among them where there are zeros; from 1
        to `most`, may be traced.
      key: for the start "random".
      iterations: the most steps of k-means.
      most: k is that, or n if that is less.
      start: a key of `kmeans.STARTS`.
    """
    there = values != 0
    zero = ~jnp.all(there)
    clusters = min(most, len(values))
    found = kmeans.numbers(
        values,
        there,
        jnp.minimum(count, clusters) - zero,
        key,
        clusters=clusters,
        start=start,
        iterations=iterations,
    )
    indices = jnp.where(there, kmeans.nearest(values, found) + zero, 0)
    # The last of them is not used where there are zeros.
    centroids = jnp.where(zero, jnp.roll(found, 1), found)
    centroids = jnp.where(jnp.isinf(centroids), 0, centroids)
    return centroids.astype(values.dtype), indices, zero


def _with_zero(zero: jax.Array, centroids: jax.Array) -> jax.Array:
    """Returns the codebook, of which the first entry is 0 where `zero` is True."""
    fixed = zero & (jnp.arange(len(centroids)) == 0)
    return jnp.where(fixed, jnp.zeros((), centroids.dtype), centroids)


def _freeze_table(zero: bool, centroids: representations.Representation):
    """Returns what stands for `_with_zero` of the centroids' representation."""
    if zero:
        rest = np.arange(representations.shape_of(centroids)[0]) > 0
        cleared = representations.sparse(rest, centroids)
        match cleared.values:
            # What is cleared in them is 0 without a mask.
            case representations.Dense() | representations.Quantized(zero_point=None):
                centroids = cleared.values
            case _:
                centroids = cleared
    if isinstance(centroids, representations.Dense):
        return np.asarray(centroids.values)
    return centroids


def share(
    *,
    bits: int,
    start: str = "linear",
    scope: str = "leaf",
    trained: bool = True,
    iterations: int = 100,
    seed: int = 0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Shares at most `2**bits` values among the weights, found by k-means.

    Weights that come as 0, as after pruning, stay 0: where there are any, the first
    entry of the codebook is 0, not trained, and one of the `2**bits`. Weights of no
    more distinct values than that are kept as they are. Which weights share a value is
    settled at `encode`.

    To store the centroids in few bits, put `quantize(granularity="tensor")` after it:
    they are a leaf of one axis, in which each channel would be a single centroid.
    Prune before it at once, or `keep` what an earlier stage has pruned: zeros that a
    schedule makes later are a value more.

    Args:
      bits: of an index, 1 to 16; not traced.
      start: of k-means, a key of `kmeans.STARTS`: "linear" (best in the paper),
        "density" or "random".
      scope: one codebook a "leaf", or a "global" one for all of them, which is trained
        at the first leaf's path by name.
      trained: train the centroids; else they are fixed and no code is left.
      iterations: the most steps of k-means, at least 0.
      seed: of the start "random".
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: bits outside 1..16, an unknown start or scope, negative iterations; at
        `encode`, a pattern that matches nothing, or a global codebook for leaves of
        different dtypes.
    """
    check_bits(bits, "share")
    errors.lookup(kmeans.STARTS, start, "start of share")
    errors.lookup(dict.fromkeys(SCOPES), scope, "scope of share")
    if iterations < 0:
        raise errors.UserError(f"share: iterations is at least 0, got {iterations}")

    def groups(leaves: base.Leaves) -> list[list[str]]:
        """Returns the paths that have a codebook in common; the first holds it."""
        # In a fixed order: jit sorts the keys of dicts.
        paths = sorted(leaves)
        return [paths] if scope == "global" else [[path] for path in paths]

    def clustered(weights: base.Leaves, paths: list[str]):
        """Returns (centroids, {path: indices}, whether the first centroid is 0)."""
        dtypes = {path: weights[path].dtype for path in paths}
        if len(set(dtypes.values())) > 1:
            given = ", ".join(f"{path} {dtype}" for path, dtype in dtypes.items())
            raise errors.UserError(
                f"share: a global codebook has one dtype, got {given}"
            )
        together = jnp.concatenate([weights[path].reshape(-1) for path in paths])
        key, most = jax.random.key(seed), 2**bits
        centroids, indices, zero = cluster(
            together, most, key, iterations, most=most, start=start
        )
        indices = indices.astype(index_dtype(bits))
        ends = np.cumsum([weights[path].size for path in paths])
        split = zip(paths, jnp.split(indices, ends[:-1]), strict=True)
        return centroids, {p: i.reshape(weights[p].shape) for p, i in split}, zero

    def encode(weights):
        codes, states = {}, {}
        for paths in groups(weights):
            centroids, indices, zero = clustered(weights, paths)
            for path in paths:
                codes[path], states[path] = {}, {"indices": indices[path]}
            states[paths[0]]["zero"] = zero
            if trained:
                codes[paths[0]] = centroids
            else:
                states[paths[0]]["centroids"] = centroids
        return codes, states

    def decode(codes, states):
        weights = {}
        for first, *rest in groups(states):
            of = states[first]
            table = _with_zero(of["zero"], codes[first] if trained else of["centroids"])
            for path in (first, *rest):
                weights[path] = table[states[path]["indices"]]
        return weights

    def freeze(leaves, states):
        frozen = {}
        for first, *rest in groups(states):
            of = states[first]
            table = leaves[first] if trained else representations.of(of["centroids"])
            table = _freeze_table(bool(of["zero"]), table)
            for path in (first, *rest):
                indices = np.asarray(states[path]["indices"])
                frozen[path] = representations.Codebook(indices, table)
        return frozen

    how = f"share(bits={bits}, {start}, {scope}{'' if trained else ', fixed'})"
    return base.on_leaves(how, pattern, encode, decode, freeze)
