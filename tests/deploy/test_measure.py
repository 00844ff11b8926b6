import importlib.metadata
import json
import time

import jax
import pytest

from lib import errors
from lib.deploy import measure


class Pending:
    """A result that is ready only when somebody waits for it."""

    def __init__(self, seconds):
        self.seconds = seconds

    def block_until_ready(self):
        time.sleep(self.seconds)
        return self


def test_latency_waits_and_leaves_warmup_out():
    seconds = iter([0.2, 0.001, 0.02, 0.02, 0.02, 0.06])
    result = measure.latency(lambda: Pending(next(seconds)), repeats=5, warmup=1)
    assert result.n == 5
    assert 20 <= result.low_ms <= result.median_ms <= result.high_ms < 60
    assert next(seconds, None) is None


def test_latency_passes_the_arguments():
    f = jax.jit(lambda x, y: x @ y)
    x = jax.numpy.ones((64, 64))
    result = measure.latency(f, x, x, repeats=3, warmup=1)
    assert 0 < result.low_ms <= result.median_ms <= result.high_ms


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (1, -1)])
def test_latency_says_what_is_valid(repeats, warmup):
    with pytest.raises(errors.UserError, match="repeats >= 1 and warmup >= 0"):
        measure.latency(lambda: 0, repeats=repeats, warmup=warmup)


def test_environment_is_json_and_true():
    found = measure.environment()
    assert json.loads(json.dumps(found)) == found
    for name in ("jax", "jaxlib", "flax", "numpy"):
        assert found[name] == importlib.metadata.version(name)
    assert found["devices"] == 8  # simulated, tests/conftest.py
    assert found["cores"] >= 1
    assert found["cpu"]


def test_calls_take_turns_and_keep_their_own_times():
    order = []

    def call(name, seconds):
        return lambda: (order.append(name), Pending(seconds))[1]

    calls = {"a": call("a", 0.001), "b": call("b", 0.02)}
    found = measure.in_turn(calls, repeats=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert found["a"].high_ms < 20 <= found["b"].low_ms
    # Who sleeps takes no CPU time.
    assert found["b"].cpu_ms < found["b"].low_ms / 2
