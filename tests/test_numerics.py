"""Grids against literal tables and a NumPy oracle written from the definition."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, numerics

MODES = [(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)]


def oracle(x, smallest, largest, bits, symmetric):
    """Returns (the nearest points of the grid, 1 where x is in its range), float64.

    Steps of `scale` around an exact 0, as many as the bits give.
    """
    if symmetric:
        most = 2 ** (bits - 1) - 1
        scale = max(abs(smallest), abs(largest)) / most or 1.0
        low, high = -most, most
    else:
        smallest, largest = min(smallest, 0), max(largest, 0)
        scale = (largest - smallest) / (2**bits - 1) or 1.0
        low = -min(max(round(-smallest / scale), 0), 2**bits - 1)
        high = 2**bits - 1 + low
    steps = np.clip(np.round(x / scale), low, high)
    inside = (x / scale >= low - 0.5) & (x / scale <= high + 0.5)
    return steps * scale, inside.astype(float)


def make(smallest, largest, bits, symmetric):
    return numerics.grid(
        jnp.float32(smallest), jnp.float32(largest), bits, symmetric=symmetric
    )


@pytest.mark.parametrize(
    ("bits", "symmetric", "scale", "zero_point", "low", "high"),
    [
        # Symmetric over [-21, 10]: 21 / 1, 21 / 3, 21 / 7, 21 / 127.
        (2, True, 21.0, 0, -1, 1),
        (3, True, 7.0, 0, -3, 3),
        (4, True, 3.0, 0, -7, 7),
        (8, True, 21 / 127, 0, -127, 127),
        # Affine over [-21, 10]: 31 / 3, 31 / 7, 31 / 15, 31 / 255;
        # 21 / scale = 2.03, 4.74, 10.16, 172.7.
        (2, False, 31 / 3, 2, 0, 3),
        (3, False, 31 / 7, 5, 0, 7),
        (4, False, 31 / 15, 10, 0, 15),
        (8, False, 31 / 255, 173, 0, 255),
    ],
)
def test_literal_grids(bits, symmetric, scale, zero_point, low, high):
    g = make(-21, 10, bits, symmetric)
    np.testing.assert_allclose(g.scale, scale, rtol=1e-6)
    assert (g.zero_point, g.low, g.high) == (zero_point, low, high)


def test_literal_codes():
    x = jnp.float32([-9, -4.4, -2.6, -0.4, 0, 0.4, 1.4, 1.6, 2.6, 5, 9])
    # Scale 1 in all three: the codes are the numbers rounded, kept in the range.
    g = make(-3, 3, 3, True)
    rounded = [-3, -3, -3, 0, 0, 0, 1, 2, 3, 3, 3]
    np.testing.assert_array_equal(numerics.encode(x, g), rounded)
    np.testing.assert_array_equal(numerics.fake_quant(x, g), rounded)
    g = make(-3, 4, 3, False)
    np.testing.assert_array_equal(
        numerics.encode(x, g), [0, 0, 0, 3, 3, 3, 4, 5, 6, 7, 7]
    )
    np.testing.assert_array_equal(
        numerics.fake_quant(x, g), [-3, -3, -3, 0, 0, 0, 1, 2, 3, 4, 4]
    )
    # A range that leaves 0 out is widened to hold it.
    g = make(5, 7, 3, False)
    np.testing.assert_array_equal(
        numerics.encode(x, g), [0, 0, 0, 0, 0, 0, 1, 2, 3, 5, 7]
    )
    assert make(-7, -5, 3, False).zero_point == 7


def test_half_goes_to_even():
    g = make(-7, 7, 4, True)
    np.testing.assert_array_equal(
        numerics.encode(jnp.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), g),
        [-2, -2, 0, 0, 2, 2],
    )


def test_exact_codes():
    # k / 255 is no float32, yet each must come back as k.
    k = np.arange(256)
    g = make(0, 1, 8, False)
    np.testing.assert_array_equal(numerics.encode(jnp.float32(k / 255), g), k)
    k = np.arange(-127, 128)
    g = make(-0.1, 0.1, 8, True)
    np.testing.assert_array_equal(numerics.encode(jnp.float32(k / 1270), g), k)


@pytest.mark.parametrize(("bits", "symmetric"), MODES)
def test_fake_quant_and_its_gradient_are_the_oracle(bits, symmetric):
    rng = np.random.default_rng(bits)
    for smallest, largest in [(-0.7, 1.3), (0.2, 3.0), (-90.0, -7.0), (-1e-4, 1e-4)]:
        width = max(abs(smallest), abs(largest))
        x = rng.uniform(-1.6 * width, 1.6 * width, 200).astype(np.float32)
        g = make(smallest, largest, bits, symmetric)
        y, pull = jax.vjp(lambda x, g=g: numerics.fake_quant(x, g), jnp.asarray(x))
        upstream = rng.normal(size=200).astype(np.float32)
        expected, inside = oracle(x, smallest, largest, bits, symmetric)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-7 * width)
        np.testing.assert_array_equal(pull(jnp.asarray(upstream))[0], upstream * inside)
        assert 0 < inside.mean() < 1


def test_the_grid_has_no_gradient():
    def loss(largest):
        g = numerics.grid(-largest, largest, 4, symmetric=True)
        return numerics.fake_quant(jnp.float32(0.3), g)

    assert jax.grad(loss)(jnp.float32(1.0)) == 0


@hypothesis.given(
    ends=st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2).map(sorted),
    mode=st.sampled_from(MODES),
    x=hnp.arrays(np.float32, 8, elements=st.floats(-1e7, 1e7, width=32)),
)
def test_properties_of_any_grid(ends, mode, x):
    bits, symmetric = mode
    g = make(*ends, bits, symmetric)
    codes = np.asarray(numerics.encode(x, g))
    y = np.asarray(numerics.fake_quant(x, g))
    assert (codes == np.round(codes)).all()
    assert ((codes >= g.low) & (codes <= g.high)).all()
    # What the file will say is what training saw, to the last bit.
    integers = codes.astype(np.int32) - np.int32(g.zero_point)
    np.testing.assert_array_equal(y, integers.astype(np.float32) * g.scale)
    # Zero is on the grid, exactly and only as +0.
    assert numerics.fake_quant(jnp.float32([0.0, -0.0]), g).tobytes() == bytes(8)
    assert not np.signbit(y[y == 0]).any()
    # Nothing inside the range moves by more than half a step, plus rounding.
    scale = float(g.scale)
    inside = (x >= ends[0]) & (x <= ends[1])
    assert (np.abs(y - x.astype(float))[inside] <= scale * 0.5001).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_range_of_zero_stays_zero(symmetric):
    for end in (0.0, 1e-45, 1e-39):
        g = make(-end, end, 8, symmetric)
        assert np.isfinite(g.scale) and g.scale > 0
        y = numerics.fake_quant(jnp.float32([0.0, -0.0, end, -end]), g)
        assert y.tobytes() == bytes(16)


@pytest.mark.parametrize(("bits", "symmetric"), MODES)
def test_nan_stays_nan(bits, symmetric):
    x = jnp.float32([np.nan, 0.5])
    y = numerics.fake_quant(x, make(-1, 1, bits, symmetric))
    assert np.isnan(y[0]) and np.isfinite(y[1])
    # A range that met a NaN must not hide it either.
    assert np.isnan(numerics.fake_quant(x, make(np.nan, 1, bits, symmetric))).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_traced_bits_are_untraced_bits(symmetric):
    x = np.random.default_rng(0).normal(size=50).astype(np.float32)

    def rounded(bits):
        g = numerics.grid(x.min(), x.max(), bits, symmetric=symmetric)
        return numerics.encode(x, g), numerics.fake_quant(x, g)

    swept = jax.jit(jax.vmap(rounded))(jnp.arange(2, 9))
    single = [rounded(bits) for bits in range(2, 9)]
    for i, one in enumerate(single):
        for a, b in zip(swept, one, strict=True):
            assert np.asarray(a[i]).tobytes() == np.asarray(b).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_bfloat16_keeps_its_dtype_and_its_levels(symmetric):
    x = jnp.asarray(np.linspace(-3, 3.7, 400), jnp.bfloat16)
    g = numerics.grid(x.min(), x.max(), 4, symmetric=symmetric)
    assert g.scale.dtype == jnp.float32
    assert g.scale.astype(jnp.bfloat16).astype(jnp.float32) == g.scale
    for f in (numerics.fake_quant, jax.jit(numerics.fake_quant)):
        y = f(x, g)
        assert y.dtype == jnp.bfloat16
        assert len(np.unique(np.asarray(y, np.float32))) == (14 if symmetric else 16)
    assert jax.grad(lambda x: numerics.fake_quant(x, g).sum())(x).dtype == jnp.bfloat16


@pytest.mark.parametrize("bits", [1, 0, -4, 9, 32, 2.5, np.nan, np.inf, True])
def test_bits_out_of_range(bits):
    with pytest.raises(errors.UserError) as e:
        numerics.check_bits(bits, "quantize")
    assert str(e.value) == f"quantize: bits is a whole number from 2 to 8, got {bits}"


def test_bits_in_range_or_traced():
    for bits in (2, 8, 4.0, np.int32(5), jnp.int32(6)):
        numerics.check_bits(bits, "quantize")
    jax.jit(lambda bits: numerics.check_bits(bits, "quantize"))(99)


def test_straight_through_is_y_with_the_gradient_of_x():
    # x + stop_gradient(y - x) would lose the last bits of y.
    x, y = jnp.float32([1e8, -3.0, 0.1]), jnp.float32([0.1, 1e-20, -0.0])
    out, pull = jax.vjp(numerics.straight_through, x, y)
    assert out.tobytes() == y.tobytes()
    dx, dy = pull(jnp.float32([2.0, 3.0, 5.0]))
    np.testing.assert_array_equal(dx, [2, 3, 5])
    np.testing.assert_array_equal(dy, [0, 0, 0])


def learned_oracle(x, scale, zero_point, low, high):
    """Returns y, dy/dx, dy/dscale and dy/dzero_point, element by element."""
    rows = []
    for value in x:
        code = np.round(value / scale)
        least, most = low - zero_point, high - zero_point
        if value < (least - 0.5) * scale:
            rows.append((least * scale, 0.0, least, -scale))
        elif value > (most + 0.5) * scale:
            rows.append((most * scale, 0.0, most, -scale))
        else:
            code = min(max(code, least), most)
            rows.append((code * scale, 1.0, code - value / scale, 0.0))
    return np.array(rows, np.float32).T


def test_the_learned_gradients_are_the_papers():
    x = np.array([-2.0, -1.1, -0.4, -0.1, 0.0, 0.3, 0.61, 2.5, 9.0], np.float32)
    parts = np.float32([0.5, 2.0, 0.0, 7.0])
    tangent = np.linspace(1, 2, len(x), dtype=np.float32)

    def rounded(x, scale, zero_point):
        return numerics.learned_fake_quant(
            x, numerics.Grid(scale, zero_point, *map(jnp.float32, parts[2:]))
        )

    y, pull = jax.vjp(rounded, x, *map(jnp.float32, parts[:2]))
    wanted = learned_oracle(x, *parts)
    np.testing.assert_allclose(y, wanted[0], rtol=1e-6)
    dx, dscale, dzero = pull(jnp.asarray(tangent))
    np.testing.assert_allclose(dx, wanted[1] * tangent)
    np.testing.assert_allclose(dscale, np.sum(wanted[2] * tangent), rtol=1e-6)
    np.testing.assert_allclose(dzero, np.sum(wanted[3] * tangent), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("rank", [0, 2])
def test_mapped_grids_are_one_grid_each(mapped, rank):
    scales = np.float32([0.1, 0.5, 2.0]).reshape(3, *(1,) * rank)
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(3, 2, 4)
    zero, low, high = jnp.zeros(()), jnp.float32(-7), jnp.float32(7)

    def rounded(x, scale):
        y, back = jax.vjp(
            lambda x, scale: numerics.learned_fake_quant(
                x, numerics.Grid(scale, zero, low, high)
            ),
            x,
            scale,
        )
        return y, *back(jnp.ones_like(y))

    axes = tuple(0 if m else None for m in mapped)
    args = [a if m else a[0] for a, m in zip((x, scales), mapped, strict=True)]
    got = jax.vmap(rounded, axes)(*args)
    for i in range(3):
        one = [a[i] if m else a for a, m in zip(args, mapped, strict=True)]
        for g, w in zip(got, rounded(*one), strict=True):
            np.testing.assert_array_equal(g[i], w)


def test_a_program_shows_each_rounding_as_one_equation():
    g = make(-1, 1, 8, True)
    x = jnp.ones((2, 3))

    def f(x):
        return numerics.fake_quant(x, g) + numerics.learned_fake_quant(x, g)

    names = [eqn.primitive.name for eqn in jax.make_jaxpr(f)(x).eqns]
    assert names == ["fake_quant", "fake_quant", "add"]
