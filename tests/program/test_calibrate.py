import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from lib import errors
from lib.program import (
    CALIBRATIONS,
    Calibration,
    calibrate,
    minmax,
    moving_average,
)


def net(params, x, *, slope=0.0):
    with jax.named_scope("z_first"):
        x = x @ params[0]
    with jax.named_scope("a_second"):
        return jnp.where(x > 0, x, slope * x) @ params[1]


def batches(count, rows=5):
    keys = jax.random.split(jax.random.key(0), count)
    return [
        (jax.random.normal(key, (rows, 4)) * (i + 1),) for i, key in enumerate(keys)
    ]


PARAMS = tuple(jax.random.normal(jax.random.key(9), (2, 4, 4)))


def inputs(batch, slope=0.0):
    """Returns the operand of each site, in NumPy."""
    (x,) = (np.asarray(a, np.float64) for a in batch)
    y = x @ np.asarray(PARAMS[0], np.float64)
    return {"z_first": x, "a_second": np.where(y > 0, y, slope * y)}


def test_minmax_covers_all_batches():
    data = batches(4)
    found = calibrate(net, PARAMS, iter(data), minmax(), slope=0.25)
    assert list(found) == ["z_first", "a_second"]
    for name, sides in found.items():
        assert list(sides) == ["lhs"]
        seen = np.concatenate([inputs(batch, 0.25)[name] for batch in data])
        np.testing.assert_allclose(sides["lhs"], (seen.min(), seen.max()), rtol=1e-5)
        assert sides["lhs"][0].dtype == jnp.float32


def test_moving_average_in_numpy():
    data = batches(5)
    found = calibrate(net, PARAMS, data, moving_average(decay=0.8))
    for name, sides in found.items():
        extremes = [(v.min(), v.max()) for v in (inputs(b)[name] for b in data)]
        average = np.array(extremes[0])
        for new in extremes[1:]:
            average = 0.8 * average + 0.2 * np.array(new)
        np.testing.assert_allclose(sides["lhs"], average, rtol=1e-5)


# XLA may flush subnormal numbers to zero.
@given(
    st.lists(
        st.lists(
            st.floats(-9, 9, width=32, allow_subnormal=False), min_size=1, max_size=4
        ),
        min_size=1,
    )
)
def test_the_fold_of_minmax_is_the_minmax_of_all(chunks):
    how = minmax()
    stats = [how.stat(np.array(chunk, np.float32)) for chunk in chunks]
    total = stats[0]
    for stat in stats[1:]:
        total = how.combine(total, stat)
    everything = np.array(sum(chunks, []), np.float32)
    assert tuple(map(float, how.ranges(total))) == (everything.min(), everything.max())


def test_no_decay_keeps_the_last_batch():
    data = batches(3)
    last = calibrate(net, PARAMS, data, moving_average(decay=0.0))
    only = calibrate(net, PARAMS, data[-1:], minmax())
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(a == b), last, only))


def test_a_scan_has_a_range_for_each_turn():
    def scanned(w, x):
        def turn(x, w):
            with jax.named_scope("turn"):
                return jnp.tanh(x @ w) * 2, None

        return lax.scan(turn, x, w)[0]

    def unrolled(w, x):
        for i in range(3):
            with jax.named_scope("turn"):
                x = jnp.tanh(x @ w[i]) * 2
        return x

    w, data = jax.random.normal(jax.random.key(1), (3, 4, 4)), batches(3)
    for how in (minmax(), moving_average(decay=0.5)):
        stacked = calibrate(scanned, w, data, how)["turn"]["lhs"]
        each = calibrate(unrolled, w, data, how)
        for i, name in enumerate(("turn", "turn#1", "turn#2")):
            np.testing.assert_allclose(
                [bound[i] for bound in stacked], each[name]["lhs"], rtol=1e-5
            )


def test_a_calibration_of_ones_own_sees_one_call_at_a_time():
    def spread(x):
        return {"count": jnp.ones(()), "squares": jnp.mean(x**2)}

    def combine(old, new):
        assert all(a.ndim == 0 for a in jax.tree.leaves((old, new)))
        return jax.tree.map(jnp.add, old, new)

    def ranges(stat):
        assert all(a.ndim == 0 for a in jax.tree.leaves(stat))
        deviation = jnp.sqrt(stat["squares"] / stat["count"])
        return -3 * deviation, 3 * deviation

    def scanned(w, x):
        return lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    w, data = jnp.stack([jnp.eye(4), 2 * jnp.eye(4)]), batches(2)
    how = Calibration(spread, combine, ranges)
    low, high = calibrate(scanned, w, data, how)["dot_general"]["lhs"]
    mean = np.mean([np.mean(np.asarray(x) ** 2) for (x,) in data])
    np.testing.assert_allclose(high, [3 * mean**0.5] * 2, rtol=1e-5)
    np.testing.assert_allclose(low, -high)


def test_the_program_is_traced_once():
    traces = []

    def f(params, x):
        traces.append(x)
        return net(params, x)

    calibrate(f, PARAMS, batches(1), minmax())
    few = len(traces)
    calibrate(f, PARAMS, batches(6), minmax())
    assert len(traces) == 2 * few


def test_low_precision_is_averaged_in_float32():
    def f(w, x):
        return x @ w

    x = jnp.full((2, 4), 1.0, jnp.bfloat16)
    data = [(x,), (x * 1.0078125,)]  # the next bfloat16
    w = jnp.ones((4, 4), jnp.bfloat16)
    found = calibrate(f, w, data, moving_average(decay=0.5))["dot_general"]["lhs"]
    assert found[0].dtype == jnp.float32 and float(found[0]) == 1.00390625


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_first_site(bad):
    data = batches(3)
    data[1] = (data[1][0].at[2, 1].set(bad),)
    with pytest.raises(
        errors.UserError, match="lhs of 'z_first' holds NaN or infinity"
    ):
        calibrate(net, PARAMS, data, minmax())
    weights = (PARAMS[0].at[0, 0].set(bad), PARAMS[1])
    with pytest.raises(errors.UserError, match="lhs of 'a_second' holds NaN"):
        calibrate(net, weights, batches(2), minmax())


def test_mistakes():
    with pytest.raises(errors.UserError, match="no batches"):
        calibrate(net, PARAMS, [], minmax())
    with pytest.raises(errors.UserError, match="decay is at least 0"):
        moving_average(decay=1.0)
    how = errors.lookup(CALIBRATIONS, "moving_average", "calibration")(decay=0.9)
    assert isinstance(how, Calibration)
    with pytest.raises(errors.UserError, match="did you mean 'minmax'"):
        errors.lookup(CALIBRATIONS, "min_max", "calibration")
