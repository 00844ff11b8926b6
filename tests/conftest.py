"""Strict settings for every test: 8 simulated devices, no implicit rank promotion."""

import os
import pathlib

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
    """Each compiled program maps some memory; LLVM crashes where Linux allows no more.

    The limit is 65,530 maps a process; other systems have no such file, nor limit.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
