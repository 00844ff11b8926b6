"""Schedules against tables made by hand."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, schedules

# Over steps 100 to 200. The cubic column is eq. 1 of Zhu & Gupta with s_i = 0.1 and
# s_f = 0.9: 0.9 - 0.8 * (3/4)**3 = 0.9 - 0.8 * 27/64 = 0.5625, and so on.
STEPS = [0, 99, 100, 125, 150, 175, 200, 201, 10_000]
TABLES = {
    "linear": [0.1, 0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9, 0.9],
    "cubic": [0.1, 0.1, 0.1, 0.5625, 0.8, 0.8875, 0.9, 0.9, 0.9],
    # 0.5 -+ 0.4 * sqrt(1/2) at the quarters.
    "cosine": [0.1, 0.1, 0.1, 0.2171573, 0.5, 0.7828427, 0.9, 0.9, 0.9],
    "one_shot": [0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9],
    # 0.9 * 0.8**10 is the first below 0.1, so ten rounds, 10 steps apart: after 2, 5
    # and 7 of them 0.9 * 0.64, 0.9 * 0.32768 and 0.9 * 0.2097152 are left.
    "staircase": [0.1, 0.1, 0.1, 0.424, 0.705088, 0.81125632, 0.9, 0.9, 0.9],
}


def make(name, **changes):
    settings = {"initial": 0.1, "final": 0.9, "begin": 100, "end": 200} | changes
    return schedules.SCHEDULES[name](**settings)


def test_every_schedule_has_a_table():
    assert set(TABLES) == set(schedules.SCHEDULES)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_table(name):
    schedule = make(name)
    values = [schedule(jnp.int32(step)) for step in STEPS]
    assert all(v.dtype == jnp.float32 and v.shape == () for v in values)
    np.testing.assert_allclose(values, TABLES[name], rtol=2e-6)
    # In one call over all steps, compiled or mapped: the same table.
    steps = jnp.asarray(STEPS, jnp.int32)
    for f in (schedule, jax.jit(schedule), jax.vmap(schedule)):
        np.testing.assert_allclose(f(steps), TABLES[name], rtol=2e-6)


@pytest.mark.parametrize("name", TABLES)
def test_the_end_is_exact(name):
    # A whole number of weights hangs on the last bit: 0.9 is 0.9, not its neighbour.
    schedule = jax.jit(make(name, initial=0.3))
    assert schedule(jnp.int32(200)) == np.float32(0.9)


@pytest.mark.parametrize("name", TABLES)
def test_traced_values_give_the_same_bits(name):
    step = jnp.int32(137)

    @jax.jit
    @jax.vmap
    def swept(initial, final):
        return make(name, initial=initial, final=final)(step)

    initial, final = np.float32([0.0, 0.1, 0.3]), np.float32([0.5, 0.9, 0.97])
    single = [
        jax.jit(make(name, initial=float(i), final=float(f)))(step)
        for i, f in zip(initial, final, strict=True)
    ]
    np.testing.assert_array_equal(swept(initial, final), single)


@hypothesis.given(
    name=st.sampled_from(sorted(TABLES)),
    initial=st.floats(0, 1, width=32, allow_subnormal=False),
    final=st.floats(0, 1, width=32, allow_subnormal=False),
    begin=st.integers(0, 50),
    length=st.integers(0, 50),
)
def test_moves_from_one_end_to_the_other_and_never_back(
    name, initial, final, begin, length
):
    schedule = make(name, initial=initial, final=final, begin=begin, end=begin + length)
    values = np.asarray(schedule(jnp.arange(120)), np.float64)
    np.testing.assert_allclose(values[:begin], initial, atol=1e-6)
    assert (values[begin + max(length, 1) :] == np.float32(final)).all()
    assert (np.diff(values) * np.sign(final - initial) >= -1e-6).all()


def test_constant():
    schedule = schedules.constant(value=0.25)
    assert schedule(jnp.int32(7)) == 0.25
    assert schedule(jnp.int32(7)).dtype == jnp.float32
    np.testing.assert_array_equal(schedule(jnp.arange(3)), [0.25] * 3)
    swept = jax.vmap(lambda v: schedules.constant(value=v)(jnp.int32(3)))
    np.testing.assert_array_equal(
        swept(jnp.float32([0.1, 0.2])), np.float32([0.1, 0.2])
    )


def test_periodic_holds_the_value_between():
    schedule = schedules.periodic(
        schedules.linear(initial=0.0, final=1.0, begin=0, end=8), every=3
    )
    steps = jnp.arange(11)
    expected = [0, 0, 0, 3 / 8, 3 / 8, 3 / 8, 6 / 8, 6 / 8, 6 / 8, 1, 1]
    for f in (schedule, jax.jit(schedule), jax.vmap(schedule)):
        np.testing.assert_array_equal(f(steps), np.float32(expected))


@pytest.mark.parametrize("every", [0, -1])
def test_periodic_needs_a_period(every):
    with pytest.raises(errors.UserError, match=f"at least 1 step, got {every}"):
        schedules.periodic(schedules.constant(value=1.0), every=every)


def test_at_takes_a_number_or_a_schedule():
    assert schedules.at(0.9, 5) == 0.9
    assert schedules.at(make("one_shot"), 99) == np.float32(0.1)
    assert schedules.at(make("one_shot"), jnp.int32(100)) == np.float32(0.9)
    traced = jax.jit(lambda value, step: schedules.at(value, step))
    assert traced(0.5, 3) == 0.5


@pytest.mark.parametrize("make", [schedules.linear, schedules.cubic, schedules.cosine])
def test_an_end_before_the_beginning_is_refused(make):
    schedule = make(initial=0.0, final=1.0, begin=100, end=50)
    with pytest.raises(errors.UserError, match="begins at 100, after its end at 50"):
        schedule(60)


def test_staircase_takes_the_same_share_of_what_is_left_each_round():
    schedule = schedules.staircase(
        initial=0.0, final=1 - 0.5**4, begin=3, end=11, rate=0.5
    )
    values = schedule(jnp.arange(14))
    left = [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125] + [0.0625] * 3
    np.testing.assert_array_equal(values, 1 - np.float32(left))


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_staircase_takes_a_share(rate):
    with pytest.raises(errors.UserError, match="rate is between 0 and 1"):
        schedules.staircase(initial=0.0, final=0.9, begin=0, end=9, rate=rate)
