"""Strict settings for every test: 8 simulated devices, no implicit rank promotion."""

import atexit
import os
import pathlib
import shutil
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test is compiling, so XLA optimises little here; processes that tests start
# have its own defaults, as users have.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0"
    + " --xla_llvm_disable_expensive_passes=true"
)
# All workers, and the processes that they start again and again, find what was compiled
# before. The first process makes the folder; the others have it from there.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="pare-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(
        shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
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
