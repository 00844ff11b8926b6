"""Every technique after every other: promises hold, or the order is refused."""

import jax
import pytest

from lib import transforms as T
from lib.transforms import orders
from tests.transforms import composed


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    """Thousands of programs that run once each; XLA optimises little of them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def taken(name):
    rows = T.plan(composed.MAKE[name](), composed.params())
    return {row.path for row in rows if row.taken_by}


@pytest.mark.slow
@pytest.mark.parametrize("first", composed.MAKE)
def test_every_pair(first, tmp_path):
    held = [
        later
        for later in composed.MAKE
        if composed.check([first, later], tmp_path, gradients=False)
    ]
    # Two techniques that refuse each other may take different leaves of one tree.
    for later in held:
        if (first, later) in orders.REFUSED:
            assert not taken(first) & taken(later)
    assert held or all((first, later) in orders.REFUSED for later in composed.MAKE)
