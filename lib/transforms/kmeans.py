"""k-means: of numbers, sorted once and then cut in ranges; of vectors, in chunks.

Lloyd's iteration (1982): each value goes to its nearest centroid, each centroid to the
mean of its values, until nothing moves. A centroid without values stays where it is.
Numbers start as in Deep Compression (Han et al. 2016, arXiv 1510.00149, section 3.2),
vectors as in k-means++ (Arthur & Vassilvitskii 2007). Everything is float32, can be
jitted and mapped, and of no more than `clusters` distinct values each is a centroid.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# Length of the rows in which sorted values are added up: a sum of a range is a sum of
# whole rows and of differences inside two of them, so that little cancels.
_ROW = 512

# Entries of the table of distances from points to centroids that is held at a time.
_CHUNK = 2**20


def _linear(x, size, count, slots, key):
    """Equal steps from the least value to the greatest."""
    del key
    least, most = x[0], x[jnp.maximum(size - 1, 0)]
    return least + (most - least) * (slots / jnp.maximum(count - 1, 1))


def _density(x, size, count, slots, key):
    """Equal steps of the distribution function: as many values between any two."""
    del key
    return x[((slots + 0.5) * (size / count)).astype(jnp.int32)]


def _random(x, size, count, slots, key):
    """As many of the values, drawn without replacement (Forgy 1965)."""
    drawn = jax.random.uniform(key, x.shape)
    drawn = jnp.where(jnp.arange(len(x)) < size, drawn, -1)
    values = x[lax.top_k(drawn, len(slots))[1]]
    return jnp.sort(jnp.where(slots < count, values, jnp.inf))


# name -> (sorted values, how many count, how many centroids, slots, key) -> centroids.
STARTS = {"linear": _linear, "density": _density, "random": _random}


def _distinct(x: jax.Array, size: jax.Array, count: jax.Array, slots: jax.Array):
    """Returns whether there are at most `count` distinct values, and those first."""

    def after(place, _):
        value = x[jnp.minimum(place, len(x) - 1)]
        return jnp.searchsorted(x, value, side="right"), (place, value)

    length = len(slots) + 1
    _, (places, values) = lax.scan(after, jnp.int32(0), length=length)
    each = jnp.where(places < size, values, jnp.inf)
    return places[count] >= size, each[:-1]


def _between(centroids: jax.Array) -> jax.Array:
    """Returns the bounds between ascending centroids; up to a bound is the lower's."""
    low, high = centroids[:-1], centroids[1:]
    middle = low + (high - low) / 2
    # Of neighbours among the floats the middle may be the upper one.
    bounds = jnp.where(middle < high, middle, low)
    return jnp.where(jnp.isinf(high), jnp.inf, bounds)


def nearest(values: jax.Array, centroids: jax.Array) -> jax.Array:
    """Returns the index of the centroid nearest to each value; of two, the lower.

    Args:
      values: float, any shape.
      centroids: `[k]` float32, ascending; infinite ones are nearest to nothing.

    Returns:
      int32 of the values' shape, below k.
    """
    return jnp.searchsorted(_between(centroids), values.astype(jnp.float32))


def _summing(x: jax.Array):
    """Returns `ends [k + 1] -> [k]`, the sums of x between one end and the next."""
    rows = jnp.pad(x, (0, _ROW - len(x) % _ROW)).reshape(-1, _ROW)
    before = (jnp.cumsum(rows, axis=1) - rows).reshape(-1)  # in the same row
    totals, places = jnp.sum(rows, axis=1)[None, :], jnp.arange(len(rows))[None, :]

    def sums(ends):
        row = ends // _ROW
        whole = (places >= row[:-1, None]) & (places < row[1:, None])
        inner = jnp.sum(jnp.where(whole, totals, 0), axis=1)
        return inner + (before[ends[1:]] - before[ends[:-1]])

    return sums


def _moving(step, start: jax.Array, iterations: jax.Array) -> jax.Array:
    """Returns the centroids after `step` was applied until nothing moved."""

    def unfinished(state):
        turn, _, moved = state
        return moved & (turn < iterations)

    def move(state):
        turn, centroids, _ = state
        new = step(centroids)
        return turn + 1, new, jnp.any(new != centroids)

    return lax.while_loop(unfinished, move, (0, start, jnp.array(True)))[1]


@functools.partial(jax.jit, static_argnames=("clusters", "start"))
def numbers(
    values: jax.Array,
    mask: jax.Array,
    count: jax.Array | int,
    key: jax.Array,
    *,
    clusters: int,
    start: str,
    iterations: int,
) -> jax.Array:
    """Returns centroids of numbers, which minimise the squared distances locally.

    Args:
      values: `[n]` float, finite.
      mask: `[n]` bool, True = the value counts.
      count: how many centroids, from 0 to `clusters`; may be traced.
      key: for the start "random".
      clusters: how many places for centroids there are, from 1 to n.
      start: a key of `STARTS`.
      iterations: the most steps, at least 0; fewer if nothing moves any more.

    Returns:
      `[clusters]` float32, ascending; places that are not used are infinite: those
      from `count` on, and those beyond the number of distinct values.
    """
    values = values.astype(jnp.float32)
    x, size = jnp.sort(jnp.where(mask, values, jnp.inf)), jnp.sum(mask)
    slots = jnp.arange(clusters)
    begun = STARTS[start](x, size, count, slots, key)
    begun = jnp.where(slots < count, begun, jnp.inf)
    few, each = _distinct(x, size, count, slots)
    begun = jnp.where(few, each, begun)
    sums = _summing(jnp.where(jnp.arange(len(x)) < size, x, 0))

    def step(centroids):
        inner = jnp.searchsorted(x, _between(centroids), side="right")
        ends = jnp.r_[0, jnp.minimum(inner, size), size]
        sizes = jnp.diff(ends)
        means = sums(ends) / jnp.maximum(sizes, 1)
        # A mean lies among its values, whatever was rounded; of equal ones it is they.
        means = jnp.clip(means, x[ends[:-1]], x[jnp.maximum(ends[1:] - 1, 0)])
        return jnp.where(sizes > 0, means, centroids)

    return _moving(step, begun, iterations)


@jax.jit
def nearest_vectors(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """Returns the index of the centroid nearest to each point, up to float32 rounding.

    A table of `_CHUNK` distances is held at a time, however many points there are.

    Args:
      points: `[n, d]` float.
      centroids: `[k, d]` float.

    Returns:
      `[n]` int32, below k.
    """
    points, centroids = (x.astype(jnp.float32) for x in (points, centroids))
    # |x - c|^2 / 2 = |x|^2 / 2 - x.c + |c|^2 / 2, of which the first is the same for
    # all c. Points and centroids about their mean, so that less cancels.
    middle = jnp.mean(centroids, axis=0, keepdims=True)
    points, centroids = points - middle, centroids - middle
    half = jnp.sum(centroids**2, axis=1)[None, :] / 2

    def chunk(points):
        products = jnp.matmul(points, centroids.T, precision=lax.Precision.HIGHEST)
        return jnp.argmin(half - products, axis=1)

    n, d = points.shape
    rows = min(n, max(1, _CHUNK // len(centroids)))
    chunks = jnp.pad(points, ((0, -n % rows), (0, 0))).reshape(-1, rows, d)
    return lax.map(chunk, chunks).reshape(-1)[:n]


def _plus_plus(points: jax.Array, clusters: int, key: jax.Array) -> jax.Array:
    """Returns points drawn one by one, likelier the further from those drawn before."""

    def draw(i, state):
        chosen, distances = state
        # Gumbel's way to draw: a point that was drawn, at distance 0, never wins.
        noise = jax.random.gumbel(jax.random.fold_in(key, i), distances.shape)
        point = points[jnp.argmax(jnp.log(distances) + noise)]
        to_it = jnp.sum((points - point[None, :]) ** 2, axis=1)
        return chosen.at[i].set(point), jnp.minimum(distances, to_it)

    n, d = points.shape
    # Of points all alike, all distances are 0.
    start = jnp.zeros((clusters, d)), jnp.ones(n)
    return lax.fori_loop(0, clusters, draw, start)[0]


@functools.partial(jax.jit, static_argnames="clusters")
def vectors(
    points: jax.Array, key: jax.Array, *, clusters: int, iterations: int
) -> jax.Array:
    """Returns centroids of vectors, which minimise the squared distances locally.

    Args:
      points: `[n, d]` float, finite.
      key: for the start.
      clusters: how many centroids, from 1 to n.
      iterations: the most steps, at least 0; fewer if nothing moves any more.

    Returns:
      `[clusters, d]` float32, in no order.
    """
    points = points.astype(jnp.float32)

    def step(centroids):
        index = nearest_vectors(points, centroids)
        sizes = jax.ops.segment_sum(jnp.ones(len(points)), index, clusters)
        # Of what they differ by: of equal points the mean is they, to the last bit.
        off = jax.ops.segment_sum(points - centroids[index], index, clusters)
        return centroids + off / jnp.maximum(sizes, 1)[:, None]

    return _moving(step, _plus_plus(points, clusters, key), iterations)
