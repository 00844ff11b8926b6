import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib.program.integer import fixed_point

LOWEST, HIGHEST = -(2**31), 2**31 - 1
WHOLE = st.integers(LOWEST, HIGHEST) | st.sampled_from(
    [LOWEST, LOWEST + 1, -1, 0, 1, 65535, 65536, -65536, -65537, 2**30, HIGHEST]
)


# Oracles in Python's whole numbers, which do not end at 32 bits.


def saturated(x):
    return max(LOWEST, min(HIGHEST, x))


def high_product(a, b):
    return saturated((a * b + 2**30) >> 31)


def shift_right(x, by):
    away = math.floor(Fraction(abs(x), 2**by) + Fraction(1, 2))
    return away if x >= 0 else -away


def scaled(acc, m0, shift):
    left, right = max(-shift, 0), max(shift, 0)
    return shift_right(high_product(saturated(acc << left), m0), right)


def requantize(acc, m0, shift, zero_point, low, high):
    return max(low, min(high, scaled(acc, m0, shift) + zero_point))


def run(f, *numbers):
    return int(f(*(jnp.asarray(x, jnp.int32) for x in numbers)))


HIGH_PRODUCT = jax.jit(fixed_point.high_product)
REQUANTIZE = jax.jit(fixed_point.requantize, static_argnums=(4, 5))


@given(WHOLE, WHOLE)
@example(LOWEST, LOWEST)
@example(-1, 2**30)
@example(1, 2**30)
def test_the_product_is_that_of_whole_numbers(a, b):
    assert run(HIGH_PRODUCT, a, b) == high_product(a, b)


@given(
    WHOLE,
    st.integers(2**30, HIGHEST),
    st.integers(-31, 31),
    st.integers(-128, 255),
    st.sampled_from([(0, 255), (-128, 127), (-7, 7)]),
)
@example(LOWEST, HIGHEST, 31, 0, (-128, 127))
@example(HIGHEST, HIGHEST, -31, 255, (0, 255))
@example(3, 2**30, 0, 0, (-128, 127))
def test_codes_are_those_of_whole_numbers(acc, m0, shift, zero_point, ends):
    found = int(
        REQUANTIZE(*(jnp.int32(x) for x in (acc, m0, shift, zero_point)), *ends)
    )
    assert found == requantize(acc, m0, shift, zero_point, *ends)


@pytest.mark.slow
@given(st.floats(2.0**-126, 2.0**100, width=32))
def test_a_multiplier_is_the_scale_exactly(scale):
    m0, shift = fixed_point.multiplier(jnp.float32(scale))
    assert 2**30 <= int(m0) < 2**31
    assert Fraction(int(m0)) / Fraction(2) ** (31 + int(shift)) == Fraction(scale)


@pytest.mark.slow
@given(st.integers(0, 2**31), st.integers(0, 16))
def test_rescaling_is_within_its_bound(seed, spare):
    rng = np.random.default_rng(seed)
    most = 2 ** (31 - spare) - 1
    acc = rng.integers(-most, most, (64, 8), endpoint=True).astype(np.int32)
    scale = np.exp(rng.normal(size=(1, 8), scale=4)).astype(np.float32)
    found = np.asarray(fixed_point.rescale(jnp.asarray(acc), jnp.asarray(scale), spare))
    exact = acc.astype(np.float64) * scale
    bound = scale * 2.0**-spare + np.abs(exact) * 2.0**-23
    assert (np.abs(found - exact) <= bound).all()
    # It is no float product in disguise: where sums are small, steps show.
    steps = np.exp2(np.frexp(scale)[1] - spare)
    assert (np.rint(found / steps) == (found / steps).astype(np.float64)).all()
