"""Many programs that run once each; XLA optimises little of them."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
