"""Learned, dynamic and per-token ranges against the papers' formulas, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import errors
from lib import program as P

BITS, STEPS = 3, 7  # of an affine grid
SHAPE = (4, 30)


def data(scale=2.0, seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE) * scale


def settings(learn="", symmetric=False, **more):
    return {"bits": BITS, "symmetric": symmetric, "learn": learn, **more}


def derivatives(x, bounds, upstream, kept):
    """Returns (y, dx, dsmallest, dlargest) of `x` rounded before `y @ I`."""
    eye = jnp.eye(x.shape[-1])

    def f(bounds, x):
        ranges = {"dot_general": {"lhs": bounds}}
        f = P.fake_quantize(lambda w, x: x @ w, ranges, [(".", kept)])
        return f(eye, x)

    args = tuple(jnp.float32(b) for b in bounds), jnp.asarray(x, jnp.float32)
    y, pull = jax.vjp(jax.jit(f), *args)
    ends, dx = pull(jnp.asarray(upstream, jnp.float32))
    return np.asarray(y), dx, *map(float, ends)


def regions(x, smallest, largest, steps):
    """Returns the grid's scale, its rounded values, and what lies below and above."""
    scale = (largest - smallest) / steps
    zero = np.round(-smallest / scale)
    code = np.round(x / scale) + zero
    y = (np.clip(code, 0, steps) - zero) * scale
    return scale, y, code < 0, code > steps


def test_pact_learns_alpha():
    x, upstream, alpha = data(), data(1.0, seed=1), 2.5
    scale, y, _, _ = regions(x, 0.0, alpha, STEPS)
    got = derivatives(x, (0.0, alpha), upstream, settings("pact"))
    np.testing.assert_allclose(got[0], y, atol=1e-5)
    np.testing.assert_allclose(got[1], upstream * ((x > 0) & (x < alpha)), rtol=1e-6)
    assert got[2] == 0  # the smallest is fixed
    np.testing.assert_allclose(got[3], upstream[x >= alpha].sum(), rtol=1e-5)


@pytest.mark.slow
def test_symmetric_pact_clips_both_sides():
    x, upstream, alpha = data(), data(1.0, seed=1), 2.5
    kept = settings("pact", symmetric=True)
    got = derivatives(x, (-alpha, alpha), upstream, kept)
    slope = upstream[x >= alpha].sum() - upstream[x <= -alpha].sum()
    np.testing.assert_allclose(got[3], slope, rtol=1e-5)


def lsq_oracle(x, upstream, smallest, largest, steps):
    """Returns the derivatives to the step s and the offset beta = smallest.

    Of LSQ+, eqs. 4 and 5: n or p outside; inside round(v) - v, and 0 to the offset.
    """
    scale, y, below, above = regions(x, smallest, largest, steps)
    to_step = np.where(below, 0, np.where(above, steps, (y - x) / scale))
    to_offset = below | above
    return (upstream * to_step).sum(), (upstream * to_offset).sum()


def test_lsq_plus_learns_step_and_offset():
    x, upstream, smallest, largest = data(), data(1.0, seed=1), -1.0, 2.5
    to_step, to_offset = lsq_oracle(x, upstream, smallest, largest, STEPS)
    got = derivatives(x, (smallest, largest), upstream, settings("lsq+"))
    share = STEPS**2 / np.sqrt(SHAPE[1] * STEPS)
    # s = (largest - smallest) / steps, beta = smallest.
    np.testing.assert_allclose(got[3], share * to_step / STEPS, rtol=1e-4)
    expected = share * (to_offset - to_step / STEPS)
    np.testing.assert_allclose(got[2], expected, rtol=1e-4)


@pytest.mark.slow
def test_lsq_learns_the_step():
    x, upstream, largest = data(), data(1.0, seed=1), 2.5
    to_step, _ = lsq_oracle(np.maximum(x, 0), upstream, 0.0, largest, STEPS)
    got = derivatives(np.maximum(x, 0), (0.0, largest), upstream, settings("lsq"))
    # The gradient of s times g = 1 / sqrt(N Q_P), seen by largest = Q_P s: SGD on it
    # moves s as SGD on s does.
    share = 1 / np.sqrt(SHAPE[1] * STEPS)
    np.testing.assert_allclose(got[3] / STEPS, share * to_step, rtol=1e-4)
    assert got[2] == 0

    # Symmetric: Q_N = Q_P = 3, one number for both ends.
    kept = settings("lsq", symmetric=True)
    got = derivatives(x, (-largest, largest), upstream, kept)
    scale = largest / 3
    v = np.clip(np.round(x / scale), -3, 3)
    outside = np.abs(np.round(x / scale)) > 3
    to_step = (upstream * np.where(outside, v, v - x / scale)).sum()
    share = 1 / np.sqrt(SHAPE[1] * 3)
    np.testing.assert_allclose(got[3] / 3, share * to_step, rtol=1e-4)


def test_what_is_trained_stands_in_its_place():
    pair = jnp.float32(-1), jnp.float32(2)
    ranges = {"net/a": {"lhs": pair}, "net/b": {"lhs": pair, "rhs": pair}, "c": {}}
    ranges["c"]["lhs"] = pair
    plus, even = settings("lsq+"), settings("pact", symmetric=True)
    rules = [("a$", plus), ("b$", even), ("c", settings())]
    ranges = P.first_ranges(ranges, rules)
    assert jax.tree.map(float, ranges["net/b"]["rhs"]) == (-2, 2)
    assert ranges["c"]["lhs"] is pair
    found = P.trained(ranges, rules)
    assert jax.tree.map(float, found) == {
        "net.a": {"lhs": {"smallest": -1, "largest": 2}},
        "net.b": {"lhs": {"largest": 2}, "rhs": {"largest": 2}},
    }
    assert P.with_trained(ranges, found, rules) == ranges
    # A step of the optimiser that goes too far.
    far = jax.tree.map(lambda x: x - 9 if x > 0 else x + 9, found)
    new = jax.tree.map(float, P.next_ranges(ranges, far, rules))
    assert new["net/a"]["lhs"] == (0, 1) and new["net/b"]["rhs"] == (-1, 1)
    assert new["c"]["lhs"] == (-1, 2)
    assert P.trained(ranges, [(".", settings())]) == {}


def affine(x, axes):
    """Returns x rounded onto grids of the values that share the axes."""
    low = np.minimum(x.min(axis=axes, keepdims=True), 0)
    high = np.maximum(x.max(axis=axes, keepdims=True), 0)
    scale = (high - low) / STEPS
    zero = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, STEPS) - zero) * scale


@pytest.mark.parametrize("kind", ["dynamic", "token"])
def test_a_matmul_rounds_on_the_range_of_each_call(kind):
    x, w = data() * np.logspace(-1, 1, 4)[:, None], np.eye(30)
    f = P.fake_quantize(lambda w, x: x @ w, {}, [(".", settings(range=kind))])
    got, pull = jax.vjp(lambda x: f(jnp.float32(w), x), jnp.float32(x))
    np.testing.assert_allclose(got, affine(x, (1,) if kind == "token" else None), 1e-5)
    np.testing.assert_array_equal(pull(jnp.ones(SHAPE))[0], 1)  # nothing is clipped


@pytest.mark.slow
def test_rows_of_other_contractions():
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    images *= np.asarray([1, 10])[:, None, None, None]
    kept = [(".", settings(range="token"))]

    def conv(w, x):
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims)

    w, x = jnp.float32(kernel), jnp.float32(images)
    got = P.fake_quantize(conv, {}, kept)(w, x)
    expected = conv(w, jnp.float32(affine(images, (1, 2, 3))))  # an image a range
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)

    q, k = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(2, 6, 3, 5))

    def scores(_, q, k):  # both operands are data, with batch axes
        return jnp.einsum("bqhd,bkhd->bhqk", q, k)

    got = P.fake_quantize(scores, {}, kept)({}, jnp.float32(q), jnp.float32(k))
    expected = np.einsum("bqhd,bkhd->bhqk", affine(q, (3,)), affine(k, (3,)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("attention", "token"),
        ("scan of remat", "token"),
        ("loops", "dynamic"),
    ],
)
def test_a_case_needs_no_calibration(cases, name, kind):
    case = cases(name)
    rules = [(".", {"bits": 8, "symmetric": False, "range": kind})]
    f = case.call(P.fake_quantize(case.f, {}, rules))
    got = jax.jit(f)(case.params, case.x)
    expected = jax.jit(case.call(case.f))(case.params, case.x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=0.1 * (1 + np.abs(b).max()))
    rows = P.coverage(case.f, rules)(case.params, case.x, *case.rest, **case.kwargs)
    assert all(row.range == kind and not row.why for row in rows if row.operands)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learn"),
    [("scan of remat", "lsq+"), ("recurrent", "pact")],
)
def test_every_range_of_a_case_learns(cases, name, learn):
    case = cases(name)
    rest = (case.x, *case.rest)
    ranges = P.calibrate(case.f, case.params, [rest], P.minmax(), **case.kwargs)
    kept = {"bits": 3, "symmetric": False, "learn": learn}
    rules = [(".", kept)]
    # Narrow ranges: there is something to clip everywhere.
    ranges = P.first_ranges(jax.tree.map(lambda r: r / 2, ranges), rules)

    def loss(trained, rules):
        whole = P.with_trained(ranges, trained, rules)
        out = case.call(P.fake_quantize(case.f, whole, rules))(case.params, case.x)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(out))

    found = P.trained(ranges, rules)
    value, grads = jax.jit(jax.value_and_grad(lambda t: loss(t, rules)))(found)
    still = [(".", {"bits": 3, "symmetric": False})]
    plain = jax.jit(lambda: loss({}, still))()
    np.testing.assert_allclose(value, plain, rtol=1e-6)  # derivatives differ, no values
    found = P.sites(case.f)(case.params, *rest, **case.kwargs)
    scans = {s.name.replace("/", "."): s.scans for s in found}
    for site, sides in grads.items():
        for ends in sides.values():
            assert all(np.isfinite(g).all() for g in ends.values())
            assert ends["largest"].shape == scans[site]
            assert np.any(ends["largest"] != 0), site


@pytest.mark.slow
def test_a_scan_learns_what_the_unrolled_loop_learns():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)

    def turn(x, w):
        with jax.named_scope("turn"):
            return jnp.tanh(x @ w) * 2

    def scanned(w, x):
        step = jax.checkpoint(lambda x, w: (turn(x, w), None))
        return lax.scan(step, x, w)[0]

    def unrolled(w, x):
        return turn(turn(turn(x, w[0]), w[1]), w[2])

    rules = [("turn", {"bits": 4, "symmetric": False, "learn": "lsq+"})]
    grads = []
    for f in (scanned, unrolled):
        ranges = P.first_ranges(P.calibrate(f, w, [(x,)], P.minmax()), rules)

        def loss(trained, f=f, ranges=ranges):
            whole = P.with_trained(ranges, trained, rules)
            return (P.fake_quantize(f, whole, rules)(w, x) ** 2).sum()

        grads.append(jax.jit(jax.grad(loss))(P.trained(ranges, rules)))
    for end in ("smallest", "largest"):
        one = grads[0]["turn"]["lhs"][end]
        each = [grads[1][n]["lhs"][end] for n in ("turn", "turn#1", "turn#2")]
        np.testing.assert_allclose(one, jnp.stack(each), rtol=1e-4, atol=1e-5)


def test_off_is_float_and_what_is_seen_is_told():
    x, w = jnp.float32(data()), jnp.eye(30)
    ranges = {"dot_general": {"lhs": (jnp.float32(0), jnp.float32(1))}}
    f = P.tracked(lambda w, x: x @ w, ranges, [(".", settings())], on=jnp.bool_(False))
    out, seen = f(w, x)
    np.testing.assert_array_equal(out, x)
    low, high = seen["dot_general"]["lhs"]
    assert (float(low), float(high)) == (float(x.min()), float(x.max()))
    for kept in (settings("lsq"), settings(range="dynamic")):
        given = ranges if kept["learn"] else {}
        assert P.tracked(lambda w, x: x @ w, given, [(".", kept)])(w, x)[1] == {}


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            settings(range="dynamc"),
            "unknown range of rule '.' 'dynamc'; did.*'dynamic'",
        ),
        (settings("lsp"), "unknown learn of rule '.' 'lsp'; did you mean 'lsq'"),
        (
            settings("lsq", range="token"),
            "learn 'lsq' trains a static range; .*'token'",
        ),
        (
            settings("lsq+", symmetric=True),
            "'lsq\\+' trains an offset, which symmetric",
        ),
    ],
)
def test_bad_settings_are_told(kept, message):
    with pytest.raises(errors.UserError, match=message):
        P.fake_quantize(lambda w, x: x @ w, {}, [(".", kept)])


def test_a_fixed_range_is_that_of_every_site():
    how = P.CALIBRATIONS["fixed"](bounds=(0.0, 1.0))
    x = jnp.float32(data())
    found = P.calibrate(lambda w, x: x @ w, jnp.eye(30), [(x,), (x,)], how)
    assert jax.tree.map(float, found) == {"dot_general": {"lhs": (0.0, 1.0)}}
    with pytest.raises(errors.UserError, match="the first below, got"):
        P.CALIBRATIONS["fixed"](bounds=(1.0, 0.0))
