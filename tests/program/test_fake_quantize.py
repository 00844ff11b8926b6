import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import errors, numerics
from lib.program import calibrate, coverage, fake_quantize, minmax, observe, sites

SIDES = ("lhs", "rhs")
EIGHT = {"bits": 8, "symmetric": False}
FOUR = {"bits": 4, "symmetric": True}


def rounded(x, bounds, bits, symmetric):
    """An oracle of an affine or symmetric grid in NumPy's float64."""
    x, (low, high) = np.asarray(x, np.float64), (float(b) for b in bounds)
    if symmetric:
        steps = 2 ** (bits - 1) - 1
        scale = max(abs(low), abs(high)) / steps
        return np.clip(np.round(x / scale), -steps, steps) * scale
    low, high, steps = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = (high - low) / steps
    zero = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, steps) - zero) * scale


def mlp(params, x):
    for i, (w, b) in enumerate(params):
        with jax.named_scope(f"layer_{i}"):
            x = x @ w + b
        x = jax.nn.relu(x) if i < len(params) - 1 else x
    return x


@functools.cache
def mlp_params():
    key = jax.random.key(0)
    shapes = [(6, 8), (8, 8), (8, 3)]
    keys = jax.random.split(key, len(shapes))
    return [
        (jax.random.normal(k, s) / 2, jnp.full((1, s[1]), 0.1))
        for k, s in zip(keys, shapes, strict=True)
    ]


def data(*shape, seed=5):
    return jax.random.normal(jax.random.key(seed), shape)


def test_an_mlp_by_hand():
    params, x = mlp_params(), data(16, 6)
    ranges = calibrate(mlp, params, [(x,)], minmax())
    rules = [("layer_1", None), ("layer_0", FOUR), ("layer", EIGHT)]
    y = np.asarray(x, np.float64)
    for i, (w, b) in enumerate(params):
        bounds = ranges[f"layer_{i}"]["lhs"]
        settings = (FOUR, None, EIGHT)[i]
        y = rounded(y, bounds, **settings) if settings else y
        y = y @ np.asarray(w, np.float64) + np.asarray(b)
        y = np.maximum(y, 0) if i < 2 else y
    got = jax.jit(fake_quantize(mlp, ranges, rules))(params, x)
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-5)
    assert np.abs(got - mlp(params, x)).max() > 0.01


@pytest.mark.slow
def test_attention_by_hand():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadDotProductAttention(num_heads=2, name="mha")(x)

    x = data(2, 5, 8)
    params = jax.jit(Net().init)(jax.random.key(1), x)
    ranges = calibrate(Net().apply, params, [(x,)], minmax())
    assert len(ranges) == 6 and sum(len(sides) for sides in ranges.values()) == 8
    by_last = {name.removeprefix("Net/mha/"): sides for name, sides in ranges.items()}

    def q(x, name, side):
        return rounded(x, by_last[name][side], **EIGHT)

    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"]["mha"])

    def project(name):
        y = np.einsum("bld,dhe->blhe", q(x, name, "lhs"), weights[name]["kernel"])
        return y + weights[name]["bias"]

    def product(spec, name, *operands):
        # einsum chooses which operand of dot_general comes first; its range tells.
        first = operands[0].max()
        away = {side: abs(float(by_last[name][side][1]) - first) for side in SIDES}
        sides = SIDES if away["lhs"] < away["rhs"] else SIDES[::-1]
        rounds = [q(x, name, s) for x, s in zip(operands, sides, strict=True)]
        return np.einsum(spec, *rounds)

    score, mix = (n for n in by_last if "..." in n)
    query = project("query") / np.sqrt(4)
    logits = product("bqhd,bkhd->bhqk", score, query, project("key"))
    attention = np.exp(logits - logits.max(-1, keepdims=True))
    attention /= attention.sum(-1, keepdims=True)
    mixed = product("bhqk,bkhd->bqhd", mix, attention, project("value"))
    out = np.einsum("bqhd,hde->bqe", q(mixed, "out", "lhs"), weights["out"]["kernel"])
    out += weights["out"]["bias"]
    got = jax.jit(fake_quantize(Net().apply, ranges, [(".", EIGHT)]))(params, x)
    # A value on the edge of two codes may fall either way: allow a few steps.
    assert np.abs(got - out).mean() < 2e-3
    assert np.abs(got - out).max() < 2e-2
    plain = np.asarray(Net().apply(params, x))
    assert np.abs(got - out).mean() < 0.3 * np.abs(got - plain).mean()


@pytest.mark.slow
def test_gradients_are_straight_through_and_clipped():
    def f(w, x):
        return (x @ w).sum()

    w = jnp.array([[1.0], [2.0], [3.0]])
    x = jnp.array([[0.3, -5.0, 0.9], [7.0, 0.5, -0.4]])
    bounds = jnp.float32(-1), jnp.float32(1.1)

    def quantized(bounds):
        return fake_quantize(f, {"dot_general": {"lhs": bounds}}, [("dot", EIGHT)])

    dw, dx = jax.jit(jax.grad(quantized(bounds), argnums=(0, 1)))(w, x)
    inside = (np.abs(x) <= 1).astype(np.float32)
    np.testing.assert_array_equal(dx, inside * np.asarray(w).T)
    expected = rounded(x, bounds, **EIGHT).sum(0)
    np.testing.assert_allclose(dw[:, 0], expected, rtol=1e-5)
    # To the derivative a range is a constant.
    slopes = jax.grad(lambda bounds: quantized(bounds)(w, x))(bounds)
    assert [float(slope) for slope in slopes] == [0.0, 0.0]


@pytest.mark.slow
def test_a_scan_gives_what_the_unrolled_loop_gives():
    def turn(x, w):
        with jax.named_scope("turn"):
            return jnp.tanh(x @ w) * 2

    def scanned(w, x):
        step = jax.checkpoint(lambda x, w: (turn(x, w), None))
        return lax.scan(step, x, w)[0]

    def unrolled(w, x):
        return turn(turn(turn(x, w[0]), w[1]), w[2])

    w, x = data(3, 4, 4, seed=1), data(6, 4)
    rules = [("turn", FOUR)]
    outs, grads = [], []
    for f in (scanned, unrolled):
        g = fake_quantize(f, calibrate(f, w, [(x,)], minmax()), rules)
        outs.append(jax.jit(g)(w, x))
        grads.append(jax.jit(jax.grad(lambda w, g=g: (g(w, x) ** 2).sum()))(w))
    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-4, atol=1e-5)
    assert np.abs(outs[0] - unrolled(w, x)).max() > 1e-3


@pytest.mark.slow
def test_every_case_is_quantized_near_the_plain_one(case):
    args = (case.params, case.x, *case.rest)
    observed = calibrate(case.f, case.params, [args[1:]], minmax(), **case.kwargs)
    found = sites(case.f)(*args, **case.kwargs)
    hidden = [s.name for s in found if not s.recordable]
    rules = [(f"^{name}$", None) for name in hidden] + [(".", EIGHT)]
    f = case.call(fake_quantize(case.f, observed, rules))
    got = jax.jit(f)(case.params, case.x)
    expected = jax.jit(case.call(case.f))(case.params, case.x)
    differ = []
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=0.1 * (1 + np.abs(b).max()))
        differ.append(np.any(a != b))
    assert any(differ)


@pytest.mark.slow
def test_vmap_over_bits_equals_single_runs():
    params, x = mlp_params(), data(4, 6)
    ranges = calibrate(mlp, params, [(x,)], minmax())

    def run(bits):
        rules = [(".", {"bits": bits, "symmetric": False})]
        return fake_quantize(mlp, ranges, rules)(params, x)

    many = jax.jit(jax.vmap(run))(jnp.array([2, 4, 8]))
    for i, bits in enumerate((2, 4, 8)):
        np.testing.assert_allclose(many[i], jax.jit(run)(bits), rtol=1e-5, atol=1e-6)


def test_ranges_may_be_traced_and_a_second_call_traces_nothing():
    params, x = mlp_params(), data(4, 6)
    traces = []

    @jax.jit
    def step(params, ranges, x):
        traces.append(None)
        f = fake_quantize(mlp, ranges, [(".", EIGHT)])
        return jax.value_and_grad(lambda p: (f(p, x) ** 2).sum())(params)

    ranges = calibrate(mlp, params, [(x,)], minmax())
    first, _ = step(params, ranges, x)
    wider = jax.tree.map(lambda r: r * 4, ranges)
    second, _ = step(params, wider, x)
    assert len(traces) == 1 and float(first) != float(second)
    many, _ = jax.jit(jax.vmap(step, (None, 0, None)))(
        params, jax.tree.map(lambda a, b: jnp.stack([a, b]), ranges, wider), x
    )
    np.testing.assert_allclose(many, [first, second], rtol=1e-5)


def test_bfloat16_stays_bfloat16():
    def f(w, x):
        return x @ w

    x, w = data(8, 4).astype(jnp.bfloat16), jnp.eye(4, dtype=jnp.bfloat16)
    ranges = calibrate(f, w, [(x,)], minmax())
    got = fake_quantize(f, ranges, [(".", FOUR)])(w, x)
    assert got.dtype == jnp.bfloat16
    expected = rounded(x, ranges["dot_general"]["lhs"], **FOUR)
    np.testing.assert_allclose(got.astype(np.float32), expected, rtol=0.01)


def test_weights_and_integers_are_left_alone():
    def f(params, x, ids):
        with jax.named_scope("merge"):
            w = params["u"] @ params["v"]
        with jax.named_scope("count"):
            n = ids @ ids.T
        with jax.named_scope("use"):
            return x @ w, n

    params = {"u": data(4, 2), "v": data(2, 4)}
    x, ids = data(3, 4), jnp.arange(4).reshape(2, 2)
    ranges = calibrate(f, params, [(x, ids)], minmax())
    assert {name: list(sides) for name, sides in ranges.items()} == {"use": ["lhs"]}
    got, n = fake_quantize(f, ranges, [(".", EIGHT)])(params, x, ids)
    np.testing.assert_array_equal(n, ids @ ids.T)
    x = rounded(x, ranges["use"]["lhs"], **EIGHT)
    expected = x @ np.asarray(params["u"] @ params["v"], np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_it_composes_with_observe():
    params, x = mlp_params(), data(16, 6)
    ranges = calibrate(mlp, params, [(x,)], minmax())
    rules = [(".", {"bits": 2, "symmetric": False})]

    def distinct(x):
        return jnp.sort(x.ravel())

    inner = fake_quantize(mlp, ranges, rules)
    out, seen = jax.jit(observe(inner, distinct))(params, x)
    np.testing.assert_array_equal(out, jax.jit(inner)(params, x))
    assert all(len(np.unique(s["lhs"])) <= 4 for s in seen.values())
    (again, seen) = jax.jit(fake_quantize(observe(mlp, distinct), ranges, rules))(
        params, x
    )
    np.testing.assert_array_equal(again, out)
    assert len(np.unique(seen["layer_0"]["lhs"])) == x.size


def test_a_site_inside_a_while_takes_a_range_given_by_hand():
    def loop(w, x, n):
        with jax.named_scope("loop"):
            return lax.fori_loop(0, n, lambda _, x: x @ w, x)

    w, x, n = jnp.eye(3) * 0.9, data(2, 3), jnp.int32(2)
    bounds = (jnp.float32(-3), jnp.float32(3))
    expected = rounded(x, bounds, **FOUR) @ np.asarray(w)
    expected = rounded(expected, bounds, **FOUR) @ np.asarray(w)
    g = fake_quantize(loop, {"loop": {"lhs": bounds}}, [("loop", FOUR)])
    np.testing.assert_allclose(g(w, x, n), expected, rtol=1e-5)
    with pytest.raises(errors.UserError, match="'loop'.*no range; inside a while"):
        fake_quantize(loop, {}, [("loop", FOUR)])(w, x, n)
    (row,) = coverage(loop, [("loop", FOUR)])(w, x, n)
    assert row.bits == 4 and "given by hand: inside a while" in row.why


def test_coverage_lists_every_contraction():
    @jax.custom_vjp
    def closed(x):
        return x @ x.T

    closed.defvjp(lambda x: (closed(x), x), lambda x, g: (x,))

    def f(params, x, ids):
        return closed(mlp(params["mlp"], x)), params["u"] @ params["u"], ids @ ids

    params = {"mlp": mlp_params(), "u": jnp.eye(2)}
    shapes = jax.eval_shape(lambda: (params, data(5, 6), jnp.eye(2, dtype=int)))
    rules = [("layer_1", None), ("layer_0", FOUR), ("dot_general", EIGHT)]
    rows = coverage(f, rules)(*shapes)
    got = [(r.site, r.rule, r.operands, r.bits, r.macs) for r in rows]
    assert got == [
        ("layer_0", "layer_0", ("lhs",), 4, 5 * 6 * 8),
        ("layer_1", "layer_1", (), None, 5 * 8 * 8),
        ("layer_2", None, (), None, 5 * 8 * 3),
        ("dot_general", "dot_general", (), None, 8),
        ("dot_general#1", "dot_general", (), None, 8),
        ("custom_vjp_call", None, (), None, 0),
    ]
    assert [r.why for r in rows[:5]] == [
        "",
        "its rule exempts it",
        "no rule takes it",
        "both operands are weights",
        "no operand is real float",
    ]
    assert "derivative rule" in rows[5].why


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("layr_1", EIGHT)], "'layr_1' matches nothing; nearest"),
        ([("layer", EIGHT), ("layer_1", None)], "only matches what earlier rules took"),
        ([("layer(", EIGHT)], "no regular expression"),
        ([("layer", {"bits": 8})], "symmetric is not set"),
        ([("layer", {**EIGHT, "symetric": True})], "did you mean 'symmetric'"),
        ([("layer", {**EIGHT, "bits": 9})], "from 2 to 8, got 9"),
        ([("layer", {**EIGHT, "symmetric": 1})], "symmetric is True or False, got 1"),
    ],
)
def test_mistakes_in_rules(rules, message):
    params, x = mlp_params(), data(4, 6)
    ranges = calibrate(mlp, params, [(x,)], minmax())
    with pytest.raises(errors.UserError, match=message) as caught:
        fake_quantize(mlp, ranges, rules)(params, x)
    assert "\n" not in str(caught.value)
    with pytest.raises(errors.UserError, match=message):
        coverage(mlp, rules)(params, x)


def test_mistakes_in_ranges():
    params, x = mlp_params(), data(4, 6)
    ranges = calibrate(mlp, params, [(x,)], minmax())
    bounds = ranges["layer_0"]["lhs"]
    cases = [
        ({**ranges, "layer_1": {}}, "'layer_1' is to be quantized but its lhs has no"),
        ({**ranges, "layer_7": {"lhs": bounds}}, "'layer_7': no such site; did you"),
        (
            {**ranges, "layer_0": {"lhs": (jnp.zeros(3), jnp.ones(3))}},
            r"'layer_0' lhs: .* shape \(\), got \(3,\)",
        ),
    ]
    for wrong, message in cases:
        with pytest.raises(errors.UserError, match=message):
            fake_quantize(mlp, wrong, [("layer", EIGHT)])(params, x)
    # What a rule exempts needs no range.
    rest = {name: ranges[name] for name in ("layer_0", "layer_2")}
    fake_quantize(mlp, rest, [("layer_1", None), ("layer", EIGHT)])(params, x)


def test_the_grid_is_the_one_of_numerics():
    def f(w, x):
        return x @ w

    x, bounds = data(8, 4), (jnp.float32(-1.5), jnp.float32(2.5))
    got = fake_quantize(f, {"dot_general": {"lhs": bounds}}, [(".", EIGHT)])
    grid = numerics.grid(*bounds, 8, symmetric=False)
    np.testing.assert_array_equal(
        jax.jit(got)(jnp.eye(4), x), jax.jit(numerics.fake_quant)(x, grid)
    )
