"""Strict settings for every test: 8 simulated devices, no implicit rank promotion."""

import os
import pathlib
import time

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


LOOK = 2.0  # seconds between two looks: counting the maps takes milliseconds
_looked = [time.monotonic()]


@pytest.fixture(autouse=True)
def _forget_programs():
    """Each compiled program maps some memory; LLVM crashes where Linux allows no more.

    The limit is 65,530 maps a process; other systems have no such file, nor limit.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if time.monotonic() - _looked[0] < LOOK or not maps.exists():
        return
    _looked[0] = time.monotonic()
    if maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Processes that tests start again and again find what they compiled before."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
