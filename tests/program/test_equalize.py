"""Cross-layer equalisation: the paper's optimum, and the function as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import numerics, program


def drawn(seed=0, **shapes):
    """Weights whose channels differ by factors of up to a hundred or so."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=s) * np.exp(rng.normal(size=s[-1]))).astype(np.float32)
        for name, s in shapes.items()
    }


def x(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def mlp(w, x):
    h = jax.nn.relu(x @ w["a"] + w["b"][None])
    return jax.nn.relu(h @ w["c"] + w["d"][None]) @ w["e"]


def test_a_pair_is_the_papers_equation():
    def f(w, x):
        return jax.nn.relu(x @ w["a"] + w["b"][None]) @ w["c"]

    w = drawn(a=(3, 4), b=(4,), c=(4, 2))
    w["a"][:, 3] = 0  # a dead channel stays as it is
    new, changes = program.equalize(f)(w, x(2, 3))
    r1, r2 = np.abs(w["a"]).max(0), np.abs(w["c"]).max(1)
    r1[3] = r2[3]
    s = np.sqrt(r1 * r2) / r2  # eq. 11
    np.testing.assert_allclose(new["a"], w["a"] / s, rtol=1e-5)
    np.testing.assert_allclose(new["b"], w["b"] / s, rtol=1e-5)
    np.testing.assert_allclose(new["c"], w["c"] * s[:, None], rtol=1e-5)
    assert [c.paths for c in changes] == [("a", "b", "c"), ()]


@pytest.mark.slow
def test_a_chain_settles_where_all_ranges_meet():
    w, data = drawn(a=(3, 8), b=(8,), c=(8, 6), d=(6,), e=(6, 2)), x(64, 3)
    new, _ = program.equalize(mlp)(w, data)
    for first, second in (("a", "c"), ("c", "e")):
        ends = np.abs(new[first]).max(0), np.abs(new[second]).max(1)
        np.testing.assert_allclose(*ends, rtol=1e-3)
    np.testing.assert_allclose(mlp(new, data), mlp(w, data), rtol=1e-3, atol=1e-3)
    # Whatever the channels were scaled by, they end at the same place.
    wild = w
    for link in program.links(mlp)(w, data)[0]:
        factors = np.random.default_rng(2).normal(0, 2, link.channels)
        wild = link.scaled(wild, np.exp(factors))
    again, _ = program.equalize(mlp)(wild, data)
    for path, leaf in new.items():
        np.testing.assert_allclose(again[path], leaf, rtol=2e-3)

    def lost(w):
        """The error of 8 bits and one range a tensor."""
        kernels = {k: jnp.asarray(w[k]) for k in "ace"}
        grids = {
            k: numerics.grid(v.min(), v.max(), 8, symmetric=True)
            for k, v in kernels.items()
        }
        rounded = {k: numerics.fake_quant(v, grids[k]) for k, v in kernels.items()}
        return float(np.abs(mlp({**w, **rounded}, data) - mlp(w, data)).mean())

    assert lost(again) < 0.2 * lost(wild)


DIMS = ("NHWC", "HWIO", "NHWC")


def conv(x, k, groups=1):
    return lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=DIMS, feature_group_count=groups
    )


def separable(w, x):
    """A residual block of a pointwise, a depthwise and a pointwise convolution."""
    y = jax.nn.relu(conv(x, w["in"]))
    h = jax.nn.relu(conv(y, w["expand"]))
    h = jax.nn.relu(conv(h, w["depthwise"], 6))
    return conv(jax.nn.relu(y + conv(h, w["project"])), w["out"])


@pytest.mark.slow
def test_depthwise_separable_inside_a_residual_block():
    w = drawn(
        **{"in": (3, 3, 2, 4), "expand": (1, 1, 4, 6), "depthwise": (3, 3, 1, 6)},
        project=(1, 1, 6, 4),
        out=(1, 1, 4, 2),
    )
    data = x(2, 5, 5, 2)
    new, changes = program.equalize(separable)(w, data)
    rows = {c.paths[0]: c.paths for c in changes if c.paths}
    assert set(rows) == {"expand", "depthwise"}  # none across the sum
    ends = [
        np.abs(new["expand"]).max((0, 1, 2)),
        np.abs(new["depthwise"]).max((0, 1, 2)),
    ]
    np.testing.assert_allclose(*ends, rtol=1e-3)
    np.testing.assert_allclose(
        ends[0], np.abs(new["project"]).max((0, 1, 3)), rtol=1e-3
    )
    for path in ("in", "out"):
        np.testing.assert_array_equal(new[path], w[path])
    run = jax.jit(separable)
    np.testing.assert_allclose(run(new, data), run(w, data), rtol=1e-4, atol=1e-4)
    assert sum("another value is added" in c.why for c in changes) == 2
