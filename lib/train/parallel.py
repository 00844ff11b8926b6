"""One step over all local devices: jitted over a mesh, or pmapped; same numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from lib import errors

AXIS = "data"  # examples are split over it, everything else is replicated

Advance = Callable[..., tuple[Any, Any]]  # (state, rows, fixed, axis) -> state, metrics


class Runner(NamedTuple):
    """A compiled training step on all devices.

    Attributes:
      run: (state, rows, fixed) -> (state, metrics); leaves of rows have leading axes
        [steps, batch], metrics [steps]. The state that goes in is donated.
      put: copies a pytree to every device, in the form that `run` takes.
      get: takes a state of `run` to the form that it was `put` from.
    """

    run: Callable[[Any, Any, Any], tuple[Any, Any]]
    put: Callable[[Any], Any]
    get: Callable[[Any], Any]


def _many(advance: Advance, axis: str | None) -> Callable[[Any, Any, Any], Any]:
    """Returns a function that takes several steps, as a scan, or one without it.

    XLA's CPU convolutions are several times slower inside a scan, hence the plain
    call for a single step.
    """

    def many(state, rows, fixed):
        if jax.tree.leaves(rows)[0].shape[0] == 1:
            state, metrics = advance(
                state, jax.tree.map(lambda r: r[0], rows), fixed, axis
            )
            return state, jax.tree.map(lambda m: m[None], metrics)
        return lax.scan(lambda s, r: advance(s, r, fixed, axis), state, rows)

    return many


def _mesh(devices: list[jax.Device]) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(devices), (AXIS,))


def jit(advance: Advance) -> Runner:
    """Jits over a mesh of all local devices; XLA splits the batch and adds up."""
    devices = jax.local_devices()
    mesh = _mesh(devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_example = NamedSharding(mesh, PartitionSpec(None, AXIS))
    run = jax.jit(
        _many(advance, None),
        in_shardings=(everywhere, by_example, everywhere),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    # A copy, because what is donated must not be the caller's own buffer.
    put = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=everywhere)
    return Runner(run, put, lambda state: state)


def pmap(advance: Advance) -> Runner:
    """Runs one replica a device, each on its part of the batch, averaging by hand."""
    devices = jax.local_devices()
    count = len(devices)
    replicas = jax.pmap(
        _many(advance, AXIS), axis_name=AXIS, devices=devices, donate_argnums=0
    )

    def run(state, rows, fixed):
        def split(r):  # [steps, batch, ...] -> [device, steps, batch / device, ...]
            parts = r.reshape(r.shape[0], count, r.shape[1] // count, *r.shape[2:])
            return parts.swapaxes(0, 1)

        state, metrics = replicas(state, jax.tree.map(split, rows), fixed)
        return state, jax.tree.map(lambda m: m[0], metrics)

    each = NamedSharding(_mesh(devices), PartitionSpec(AXIS))

    def copies(leaf):
        return jnp.broadcast_to(leaf, (count, *jnp.shape(leaf)))

    put = jax.jit(lambda x: jax.tree.map(copies, x), out_shardings=each)
    return Runner(run, put, lambda state: jax.tree.map(lambda x: x[0], state))


PARALLEL = {"jit": jit, "pmap": pmap}


def check_batch(batch_size: int) -> None:
    """Raises a `UserError` unless the local devices share a batch evenly."""
    count = jax.local_device_count()
    if batch_size < 1 or batch_size % count:
        raise errors.UserError(
            f"batch_size {batch_size} does not split evenly over {count} devices"
        )
