"""Each technique by itself, and longer chains: promises hold."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from lib import schedules, tree
from lib import transforms as T
from lib.transforms import orders
from tests.transforms import composed


def test_every_technique_is_here():
    assert set(composed.MAKE) == set(T.TECHNIQUES)
    assert {name for pair in orders.REFUSED for name in pair} <= set(composed.MAKE)


@pytest.mark.slow
@pytest.mark.parametrize("name", composed.MAKE)
def test_alone(name, tmp_path):
    assert composed.check([name], tmp_path, steps=3)


@pytest.mark.slow
@hypothesis.settings(
    max_examples=6,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    st.lists(st.sampled_from(sorted(composed.MAKE)), min_size=3, max_size=4)
)
def test_longer_chains(tmp_path, names):
    composed.check(names, tmp_path)


@pytest.mark.slow
def test_a_schedule_in_the_middle_of_a_chain():
    """Zeros that a schedule makes show through what follows, at every step."""
    weights = composed.params()
    moving = schedules.linear(initial=0.0, final=0.75, begin=0, end=3)
    t = T.chain(T.prune(sparsity=moving), T.quantize(bits=3), T.ste(sparsity=0.25))
    code, states = t.encode(weights)
    for step in range(4):
        states = t.update(code, states, T.Signals(code, jnp.int32(step), composed.KEY))
        for path, w in tree.flatten(t.decode(code, states)).items():
            if path.endswith("kernel"):
                gone = 1 - np.count_nonzero(w) / w.size
                assert gone >= max(0.25, 0.25 * step) - 0.01
