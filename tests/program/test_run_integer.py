import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors, numerics, program
from lib import representations as reps
from tests.program.on_grids import (
    ALL,
    EIGHT,
    HALF,
    Conv,
    both,
    data,
    dot,
    frozen_of,
    quantized,
)


def window_sums(codes, zero, kernel, stride, groups):
    """An oracle: whole numbers, SAME padding of a 3x3 window, a loop over all."""
    n, h, w, c = codes.shape
    out = (-(-h // stride), -(-w // stride))
    total = np.zeros((n, *out, kernel.shape[-1]), np.int64)
    per, made = c // groups, kernel.shape[-1] // groups
    for i, j, a, b in itertools.product(*map(range, (*out, 3, 3))):
        top = max((out[0] - 1) * stride + 3 - h, 0) // 2
        left = max((out[1] - 1) * stride + 3 - w, 0) // 2
        y, x = i * stride + a - top, j * stride + b - left
        if not (0 <= y < h and 0 <= x < w):
            continue  # padding is 0, whatever its code
        for g in range(groups):
            pixel = codes[:, y, x, g * per : (g + 1) * per] - zero
            part = kernel[a, b, :, g * made : (g + 1) * made].astype(np.int64)
            total[:, i, j, g * made : (g + 1) * made] += pixel.astype(np.int64) @ part
    return total


@pytest.mark.parametrize(
    ("stride", "groups", "affine"),
    [
        (2, 1, False),
        pytest.param(1, 3, False, marks=pytest.mark.slow),
        pytest.param(1, 1, True, marks=pytest.mark.slow),
    ],
)
def test_a_convolution_is_exact_and_pads_with_the_code_of_zero(stride, groups, affine):
    module = Conv(features=6, strides=stride, groups=groups)
    x = data(2, 7, 6, 3)
    kernel = quantized(data(3, 3, 3 // groups, 6, seed=1), affine=affine, exact=True)
    frozen = {"params": {"Conv_0": {"kernel": kernel}}}
    scale = 2.0**-6
    bounds = jnp.float32(-100 * scale), jnp.float32(155 * scale)  # zero point 100
    ranges = {"Conv/Conv_0": {"lhs": bounds}}
    expected, found, rows, counted = both(module.apply, frozen, x, ranges=ranges)
    assert [row.integer for row in rows] == [True] and counted[1] == 0
    np.testing.assert_array_equal(found, expected)
    codes = np.clip(np.rint(x.astype(np.float64) / scale) + 100, 0, 255)
    offset = kernel.zero_point.astype(int) if affine else 0
    sums = window_sums(codes, 100, kernel.codes - offset, stride, groups)
    np.testing.assert_array_equal(found, sums * scale * kernel.scale[0])
    # With the weights as constants, sums of codes are known before it is compiled.
    run = program.run_integer(module.apply, ranges, ALL)
    held = jax.jit(lambda x: run(program.integer_params(frozen), x))
    np.testing.assert_array_equal(held(x), found)


@functools.cache
def contraction(affine):
    """Returns the two ways to compute a dot, jitted once for all examples."""
    rules = ((".", {**EIGHT, "symmetric": not affine}),)

    def way(transform):
        return jax.jit(
            lambda params, x, *bounds: transform(
                dot, {"dot_general": {"lhs": bounds}}, rules
            )(params, x)
        )

    return way(program.fake_quantize), way(program.run_integer)


@pytest.mark.slow
@pytest.mark.parametrize("affine", [False, True])
@given(seed=st.integers(0, 2**31), spread=st.floats(0.1, 3))
def test_one_contraction_is_within_the_bound(affine, seed, spread):
    rng = np.random.default_rng(seed)
    terms = 48
    x = (rng.normal(size=(5, terms)) * np.exp(rng.normal(0, spread))).astype(np.float32)
    w = rng.normal(size=(terms, 6), scale=np.exp(rng.normal(0, spread, 6)))
    rep = quantized(w.astype(np.float32), affine=affine)
    bounds, w = (x.min(), x.max()), reps.materialize(rep)
    floats, integers = contraction(affine)
    expected = np.asarray(floats({"w": w}, x, *bounds))
    found = np.asarray(integers({"w": rep}, x, *bounds))
    grid = numerics.grid(*map(jnp.float32, bounds), 8, symmetric=not affine)
    rounded = np.asarray(numerics.fake_quant(jnp.asarray(x), grid), np.float64)
    bound = (terms + 6) * HALF * (np.abs(rounded) @ np.abs(w.astype(np.float64)))
    assert (np.abs(found - expected) <= bound).all()
    # The sums of codes are exact: only three roundings are left.
    exact = rounded @ w.astype(np.float64)
    rest = np.abs(exact) + np.abs(rounded) @ np.abs(w)
    assert (np.abs(found - exact) <= 2 * HALF * rest).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "scan of remat", "recurrent", "loops"])
def test_every_case_agrees_and_runs_in_integers(cases, name):
    case = cases(name)
    args = (case.params, case.x, *case.rest)
    frozen = frozen_of(case.params)
    dense = reps.thaw(frozen)
    ranges = program.calibrate(
        case.f, dense, [args[1:]], program.minmax(), **case.kwargs
    )
    found = program.sites(case.f)(*args, **case.kwargs)
    hidden = [s.name for s in found if not s.recordable]
    rules = [(f"^{name}$", None) for name in hidden] + [(".", EIGHT)]
    params = program.integer_params(frozen)
    run = case.call(program.run_integer(case.f, ranges, rules))
    got = jax.jit(run)(params, case.x)
    expected = jax.jit(case.call(program.fake_quantize(case.f, ranges, rules)))(
        dense, case.x
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)
    rows = program.integers(case.f, ranges, rules)(
        params, case.x, *case.rest, **case.kwargs
    )
    assert [row.site for row in rows] == [site.name for site in found]
    floats = {row.site for row in rows if not row.integer}
    # What the rules leave alone, and the product with a constant of the program.
    assert floats - set(hidden) <= {"start#2"}
    whole, left = program.integer_contractions(run, params, case.x)
    assert (whole, left) == (len(found) - len(floats), len(floats))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamic", "token"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_ranges_of_each_call(kind, symmetric):
    """A convolution has one an image, its padding included; a product one a row."""
    rules = ((".", {"bits": 8, "symmetric": symmetric, "range": kind}),)
    x = jnp.asarray(data(3, 5, 4, 2)) * jnp.arange(1.0, 4.0).reshape(3, 1, 1, 1)
    kernel = quantized(data(3, 3, 2, 4, seed=1))
    convolved = {"params": {"Conv_0": {"kernel": kernel}}}
    multiplied = {"w": quantized(data(2, 6, seed=2))}
    for f, frozen in ((Conv().apply, convolved), (dot, multiplied)):
        expected, found, _, counted = both(f, frozen, x, rules, {})
        assert counted == (1, 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_transposed_convolution_and_valid_padding():
    class Up(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.ConvTranspose(3, (3, 3), strides=(2, 2))(x)

    x = jnp.asarray(data(2, 5, 5, 2)) + 1
    for module in (Up(), Conv(padding=((0, 2), (1, 0)), dilation=2)):
        frozen = frozen_of(jax.jit(module.init)(jax.random.key(0), x))
        expected, found, _, counted = both(module.apply, frozen, x)
        assert counted == (1, 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_fixed_point_scales_are_within_a_step_of_the_sums():
    x, terms = jnp.asarray(data(16, 40)), 40
    rep = quantized(data(40, 6, seed=1))
    ranges = {"dot_general": {"lhs": (jnp.float32(-3), jnp.float32(3))}}
    args = (dot, {"w": rep}, x, ALL, ranges)
    exact, plain, *_ = both(*args)
    _, fixed, *_ = both(*args, requantize="fixed")
    spare = 31 - (terms * 255 * 127).bit_length()
    step = 6 / 255 * rep.scale * 2.0**-spare
    near = (terms + 6) * HALF * np.abs(plain).max()
    assert (np.abs(fixed - exact) <= step + near).all()
    assert (fixed != plain).any()
    with pytest.raises(errors.UserError, match="did you mean 'fixed'"):
        program.run_integer(dot, ranges, ALL, requantize="fixd")


@pytest.mark.slow
def test_vmap_and_bfloat16():
    rep = quantized(data(8, 4, seed=1))
    x = jnp.asarray(data(3, 5, 8))
    ranges = {"dot_general": {"lhs": (jnp.float32(-3), jnp.float32(3))}}
    run = program.run_integer(dot, ranges, ALL)
    params = program.integer_params({"w": rep})
    many = jax.jit(jax.vmap(run, (None, 0)))(params, x)
    one = jax.jit(run)
    np.testing.assert_array_equal(many, jnp.stack([one(params, y) for y in x]))

    def half(params, x):
        return dot(jax.tree.map(lambda w: w.astype(jnp.bfloat16), params), x)

    y = x[0].astype(jnp.bfloat16)
    expected, found, _, counted = both(half, {"w": rep}, y, ranges=ranges)
    assert counted == (1, 0) and found.dtype == jnp.bfloat16
    near = np.abs(found.astype(np.float32) - expected.astype(np.float32))
    assert near.max() <= 2.0**-6 * np.abs(expected.astype(np.float32)).max()


def test_what_stays_in_float_is_listed_with_the_reason():
    def f(params, x):
        with jax.named_scope("a"):
            x = x @ params["dense"]
        with jax.named_scope("b"):
            x = x @ params["coded"].T
        with jax.named_scope("c"):
            x = x @ params["coded"].T
        with jax.named_scope("d"):
            x = x @ (params["coded"] * 2)
        with jax.named_scope("e"):
            return x @ params["coded"]

    w = data(6, 6)
    frozen = {"dense": reps.Dense(w), "coded": quantized(w)}
    x = jnp.asarray(data(4, 6))
    rules = (("c", None), *ALL)
    ranges = program.calibrate(f, reps.thaw(frozen), [(x,)], program.minmax())
    params = program.integer_params(frozen)
    rows = program.integers(f, ranges, rules)(params, x)
    run = program.run_integer(f, ranges, rules)
    counted = program.integer_contractions(run, params, x)
    whys = {row.site: row.why for row in rows}
    assert whys == {
        "a": "its rhs is no weight that is stored as codes",
        "b": "each term of its sums has a scale of its own",
        "c": "its rule exempts it",
        "d": "its rhs is no weight that is stored as codes",
        "e": "",
    }
    assert counted == (1, 4)


def test_sums_that_do_not_fit_stay_in_float():
    terms = 2**17
    rep = reps.Quantized(
        np.ones((terms, 1), np.int8), np.ones((1, 1), np.float32), None, 8
    )
    shape = jax.ShapeDtypeStruct((1, terms), jnp.float32)
    ranges = {"dot_general": {"lhs": (jnp.float32(-1), jnp.float32(1))}}
    (row,) = program.integers(dot, ranges, ALL)({"w": rep}, shape)
    assert row.why == "sums of 131,072 products can exceed int32"


@pytest.mark.slow
def test_residual_additions_are_rounded_and_learned_ranges_are_ranges():
    def f(params, x):
        with jax.named_scope("first"):
            y = x + x @ params["w"]
        with jax.named_scope("second"):
            return y + y @ params["w"]

    frozen = {"w": quantized(data(6, 6, seed=1))}
    x = jnp.asarray(data(8, 6))
    dense = reps.thaw(frozen)
    for points, learn in (("adds", ""), ("inputs", "pact"), ("inputs", "lsq+")):
        rules = ((".", {**EIGHT, "learn": learn}),)
        ranges = program.calibrate(f, dense, [(x,)], program.minmax(), points=points)
        rounded = program.fake_quantize(f, ranges, rules, points=points)
        run = program.run_integer(f, ranges, rules, points=points)
        params = program.integer_params(frozen)
        assert program.integer_contractions(run, params, x) == (2, 0)
        np.testing.assert_allclose(
            jax.jit(run)(params, x), jax.jit(rounded)(dense, x), rtol=1e-5, atol=1e-5
        )
