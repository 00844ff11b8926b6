"""Strict settings for every test: 8 simulated devices, no implicit rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import hypothesis  # noqa: E402  XLA reads its flags when JAX is first imported
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# New examples at a developer's desk; the same each time where a merge depends on it.
hypothesis.settings.register_profile(
    "pare", max_examples=25, deadline=None, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("pare")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Thousands of compiled programs in one process end in a crash of LLVM's."""
    yield
    jax.clear_caches()
