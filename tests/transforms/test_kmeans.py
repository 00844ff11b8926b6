"""k-means against a naive one, scikit-learn's, and what is known exactly."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from lib.transforms import kmeans

KEY = jax.random.key(3)
SIZE, CLUSTERS = 200, 8


def values(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_t(3, SIZE).astype(np.float32)


def numbers(x, mask=None, count=CLUSTERS, *, start="linear", iterations=100):
    mask = np.ones(len(x), bool) if mask is None else mask
    return np.asarray(
        kmeans.numbers(
            jnp.asarray(x),
            jnp.asarray(mask),
            count,
            KEY,
            clusters=CLUSTERS,
            start=start,
            iterations=iterations,
        )
    )


def lloyd(points, centroids, iterations=100):
    """Points [n, d] and centroids [k, d], one at a time, in float64."""
    points, centroids = points.astype(np.float64), centroids.astype(np.float64)
    for _ in range(iterations):
        distances = ((points[:, None] - centroids[None]) ** 2).sum(-1)
        nearest = distances.argmin(1)
        new = centroids.copy()
        for i in range(len(centroids)):
            if (nearest == i).any():
                new[i] = points[nearest == i].mean(0)
        if (new == centroids).all():
            break
        centroids = new
    return centroids


def sklearn(points, centroids):
    """The same by scikit-learn; only where no cluster runs empty."""
    means = KMeans(len(centroids), init=centroids, n_init=1, tol=0, max_iter=100)
    return means.fit(points.astype(np.float64)).cluster_centers_


@pytest.mark.parametrize("start", kmeans.STARTS)
def test_numbers_are_lloyds(start):
    x = values()
    begun = numbers(x, start=start, iterations=0)
    found = numbers(x, start=start)
    expected = lloyd(x[:, None], begun[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found, np.sort(found))
    if start == "linear":  # a cluster of the heavy tails runs empty
        np.testing.assert_allclose(begun, np.linspace(x.min(), x.max(), 8), 1e-5)
    else:
        np.testing.assert_allclose(
            found, np.sort(sklearn(x[:, None], begun[:, None])[:, 0]), rtol=1e-5
        )
    if start == "density":  # quantiles at 1/16, 3/16, ...: positions 12.5, 37.5, ...
        np.testing.assert_array_equal(
            begun, np.sort(x)[[12 + 25 * i for i in range(8)]]
        )
    if start == "random":
        assert len(set(begun)) == CLUSTERS and set(begun) <= set(x)


def test_empty_clusters_keep_their_centroid():
    # From 0, 1, ..., 7: nothing is near 2 to 6, whose centroids stay.
    x = np.float32([0, 0.1, 0.2, 0.3, 0.9, 1.1, 6.6, 6.8, 7, 7, 7] + [7] * 189)
    found = numbers(x)
    middle = x[6:].mean()
    np.testing.assert_allclose(found, [0.15, 1, 2, 3, 4, 5, 6, middle], rtol=1e-5)


def test_masked_values_do_not_count():
    x, mask = values(), np.random.default_rng(0).uniform(size=SIZE) < 0.4
    found = numbers(x, mask, CLUSTERS - 1)
    assert found[-1] == np.inf
    begun = np.linspace(x[mask].min(), x[mask].max(), CLUSTERS - 1)
    expected = lloyd(x[mask][:, None], begun[:, None])[:, 0]
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-5, atol=1e-6)
    assert (numbers(x, np.zeros(SIZE, bool)) == np.inf).all()


TINY = float(np.finfo(np.float32).tiny)
CLOSE = [1.0, float(np.nextafter(np.float32(1), np.float32(2))), TINY, 1.5 * TINY]
FLOATS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


@hypothesis.example(CLOSE, True)
@hypothesis.given(
    st.lists(FLOATS | st.sampled_from(CLOSE), min_size=1, max_size=CLUSTERS - 1),
    st.booleans(),
)
def test_few_distinct_values_are_the_centroids(drawn, exactly):
    x = np.resize(np.float32(drawn), SIZE)
    distinct = np.unique(x)
    found = numbers(x, count=len(distinct) if exactly else CLUSTERS)
    np.testing.assert_array_equal(found[: len(distinct)], distinct)
    assert (found[len(distinct) :] == np.inf).all()
    index = kmeans.nearest(jnp.asarray(x), jnp.asarray(found))
    np.testing.assert_array_equal(found[np.asarray(index)], x)


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 1000))
def test_nothing_is_nearer_and_every_centroid_is_a_mean(seed):
    x = values(seed)
    found = numbers(x)
    index = np.asarray(kmeans.nearest(jnp.asarray(x), jnp.asarray(found)))
    distances = np.abs(x[:, None] - found[None])
    np.testing.assert_allclose(distances[np.arange(SIZE), index], distances.min(1))
    for i in np.unique(index):
        np.testing.assert_allclose(found[i], x[index == i].mean(), 1e-5, 1e-6)


def test_sums_of_ranges_lose_nothing():
    # A running sum in float32 would be off by more than the small values themselves.
    x = np.sort(np.r_[np.full(3000, -1e4), np.full(7, 1e-3), np.full(3000, 2e4)])
    ends = np.array([0, 3000, 3001, 3007, 6007])
    sums = jax.jit(lambda x, ends: kmeans._summing(x)(ends))(jnp.float32(x), ends)
    expected = [x[a:b].sum() for a, b in zip(ends[:-1], ends[1:], strict=True)]
    np.testing.assert_allclose(sums[3], expected[3], rtol=1e-6)
    np.testing.assert_allclose(sums[0], expected[0], rtol=1e-6)


@pytest.mark.slow
def test_mapped_is_one_by_one():
    x = jnp.asarray([values(seed) for seed in range(3)])
    counts = jnp.asarray([8, 7, 3])
    mask = jnp.ones(SIZE, bool)

    def one(x, count):
        return kmeans.numbers(
            x, mask, count, KEY, clusters=CLUSTERS, start="linear", iterations=100
        )

    for mapped, row, count in zip(jax.vmap(one)(x, counts), x, counts, strict=True):
        np.testing.assert_allclose(mapped, one(row, count), rtol=1e-6)


def points(seed=0, n=300, d=3):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_vectors_are_lloyds():
    x = points()
    begun, found = (
        np.asarray(kmeans.vectors(x, KEY, clusters=5, iterations=i)) for i in (0, 100)
    )
    # The start is of the points, no two the same.
    assert {tuple(c) for c in begun} <= {tuple(p) for p in x}
    assert len({tuple(c) for c in begun}) == 5
    np.testing.assert_allclose(found, lloyd(x, begun), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, sklearn(x, begun), rtol=1e-4, atol=1e-5)


def test_few_distinct_vectors_are_the_centroids():
    x = np.resize(points(n=5), (300, 3))
    found = np.asarray(kmeans.vectors(x, KEY, clusters=5, iterations=100))
    assert {tuple(c) for c in found} == {tuple(p) for p in x}
    index = np.asarray(kmeans.nearest_vectors(x, found))
    np.testing.assert_array_equal(found[index], x)


def test_chunks_are_the_whole():
    x, centroids = points(n=3001), points(1, n=500)
    assert len(x) * len(centroids) > kmeans._CHUNK
    index = kmeans.nearest_vectors(x, centroids)
    distances = ((x[:, None] - centroids[None]).astype(np.float64) ** 2).sum(-1)
    np.testing.assert_array_equal(index, distances.argmin(1))
