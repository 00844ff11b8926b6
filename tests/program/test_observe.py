import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib.program import observe, rewrite, sites, unobserved


def extremes(x):
    return {"min": x.min(), "max": x.max(), "shape": jnp.array(x.shape)}


@pytest.mark.slow
def test_outputs_stay_and_every_activation_is_seen(case):
    plain, ours = case.call(case.f), case.call(observe(case.f, extremes))
    out, stats = jax.jit(ours)(case.params, case.x)
    expected = jax.jit(plain)(case.params, case.x)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    args = (case.params, case.x, *case.rest)
    found = [s for s in sites(case.f)(*args, **case.kwargs) if s.recordable]
    seen = {s.name: s for s in found if s.activations}
    assert set(stats) == set(seen)
    for name, site in seen.items():
        assert set(stats[name]) == set(site.activations)
        for side in site.activations:
            assert stats[name][side]["min"].shape == site.scans
            shapes = stats[name][side]["shape"].reshape(site.repeats, -1)
            assert all(tuple(shape) == getattr(site, side).shape for shape in shapes)


@pytest.mark.slow
def test_statistics_of_a_linen_network_against_its_captured_activations():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(7, name="a")(x))
            x = nn.relu(nn.Dense(6, name="b")(x))
            return nn.Dense(5, name="c")(x)

    x = jax.random.normal(jax.random.key(0), (9, 4))
    params = jax.jit(Net().init)(jax.random.key(1), x)
    _, captured = Net().apply(params, x, capture_intermediates=True)
    layers = captured["intermediates"]
    inputs = {"Net/a": np.asarray(x)}
    for layer, after in (("a", "Net/b"), ("b", "Net/c")):
        inputs[after] = np.maximum(np.asarray(layers[layer]["__call__"][0]), 0)
    _, stats = observe(Net().apply, extremes)(params, x)
    assert list(stats) == ["Net/a", "Net/b", "Net/c"]
    for name, value in inputs.items():
        np.testing.assert_allclose(stats[name]["lhs"]["min"], value.min(), rtol=1e-6)
        np.testing.assert_allclose(stats[name]["lhs"]["max"], value.max(), rtol=1e-6)


def test_both_operands_of_attention():
    def f(params, q, k):
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        return jnp.einsum("bqk,bkd->bqd", scores, k @ params)

    q, k = jax.random.normal(jax.random.key(0), (2, 2, 5, 3))
    _, stats = observe(f, extremes)(jnp.eye(3), q, k)
    (scores,) = (stats[name] for name in stats if "bqd,bkd" in name)
    assert sorted(scores) == ["lhs", "rhs"]
    found = sorted(float(side["max"]) for side in scores.values())
    np.testing.assert_array_equal(found, sorted([float(q.max()), float(k.max())]))


def test_a_scan_gives_what_the_unrolled_loop_gives():
    def turn(w, x, scale):
        with jax.named_scope("inner"):
            y = jnp.tanh(x @ w)
        return y * scale

    def scanned(w, x, scales):
        def outer(x, scales):
            step = jax.checkpoint(lambda x, scale: (turn(w, x, scale), None))
            return lax.scan(step, x, scales, reverse=True)[0], None

        return lax.scan(outer, x, scales)[0]

    def unrolled(w, x, scales):
        for row in scales:
            for scale in row[::-1]:
                x = turn(w, x, scale)
        return x

    w, x, scales = jax.random.split(jax.random.key(0), 3)
    w, x = jax.random.normal(w, (3, 3)), jax.random.normal(x, (2, 3))
    scales = jax.random.uniform(scales, (4, 2)) + 0.5
    out, stats = jax.jit(observe(scanned, extremes))(w, x, scales)
    expected, each = jax.jit(observe(unrolled, extremes))(w, x, scales)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    for i in range(8):
        name = f"inner#{i}" if i else "inner"
        row, column = i // 2, 1 - i % 2  # the inner scan runs backwards
        for bound in ("min", "max"):
            np.testing.assert_allclose(
                stats["inner"]["lhs"][bound][row, column],
                each[name]["lhs"][bound],
                rtol=1e-6,
            )


def test_what_lies_inside_a_while_or_cond_is_listed(cases):
    case = cases("loops")
    listed = unobserved(case.f)(case.params, case.x, *case.rest)
    inside = [name for name in case.names if name not in case.names[:4]]
    assert [part.name for part in listed] == inside
    whys = [part.why for part in listed]
    assert all("inside a cond" in why for why in whys[:-2])
    assert all("inside a while" in why for why in whys[-2:])


def test_observing_a_rewritten_function_sees_what_the_rewrite_feeds():
    def f(w, x):
        with jax.named_scope("layer"):
            return x @ w

    def shift(site, lhs, rhs, bind):
        return bind(lhs + 10, rhs)

    w, x = jnp.eye(2), jnp.array([[1.0, 2.0]])
    _, stats = observe(rewrite(f, shift), extremes)(w, x)
    assert float(stats["layer"]["lhs"]["max"]) == 12.0
    out, stats = rewrite(observe(f, extremes), shift)(w, x)
    assert float(stats["layer"]["lhs"]["max"]) == 2.0
    np.testing.assert_array_equal(out, x + 10)


def test_under_vmap_and_grad():
    def f(w, x):
        return jnp.tanh(x @ w).sum()

    w = jnp.full((3, 1), 0.5)
    xs = jnp.arange(24.0).reshape(4, 2, 3)
    _, stats = jax.vmap(observe(f, extremes), (None, 0))(w, xs)
    expected = np.asarray(xs).max(axis=(1, 2))
    np.testing.assert_array_equal(stats["dot_general"]["lhs"]["max"], expected)
    grad, stats = jax.grad(observe(f, extremes), has_aux=True)(w, xs[0])
    np.testing.assert_allclose(grad, jax.grad(f)(w, xs[0]))
    assert float(stats["dot_general"]["lhs"]["max"]) == 5.0
