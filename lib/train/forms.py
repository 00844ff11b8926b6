"""Many runs of one program: one after another, side by side, or so on every device."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

Run = Callable[..., Any]  # (member, *shared) -> tree of arrays
Form = Callable[..., list[Any]]  # (members, *shared) -> those trees, on the host

AUTO = "auto"  # the form that a pilot finds fastest
AXIS = "runs"


def sequential(run: Run) -> Form:
    """Returns the form that runs one after another."""
    one = jax.jit(run)

    def form(members, *shared):
        return jax.device_get([one(member, *shared) for member in members])

    return form


def vmapped(run: Run) -> Form:
    """Returns the form that runs all side by side on the first device."""
    many = jax.jit(_side_by_side(run))

    def form(members, *shared):
        return _apart(many(_stacked(members), shared), len(members))

    return form


def sharded(run: Run) -> Form:
    """Returns the form that deals the runs out to all local devices.

    Those of a device go side by side. No device waits for another, and the last run is
    there more than once where they do not divide evenly.
    """
    mesh = jax.make_mesh((jax.local_device_count(),), (AXIS,))
    many = jax.jit(
        jax.shard_map(
            _side_by_side(run),
            mesh=mesh,
            in_specs=(P(AXIS), P()),
            out_specs=P(AXIS),
            check_vma=False,  # no device knows of another
        )
    )

    def form(members, *shared):
        missing = -len(members) % mesh.size
        full = [*members, *[members[-1]] * missing]
        split = jax.device_put(_stacked(full), NamedSharding(mesh, P(AXIS)))
        copied = jax.device_put(shared, NamedSharding(mesh, P()))
        return _apart(many(split, copied), len(members))

    return form


FORMS: dict[str, Callable[[Run], Form]] = {
    "sequential": sequential,
    "vmapped": vmapped,
    "sharded": sharded,
}


def possible() -> list[str]:
    """Returns the forms that differ here: with one device there is none to deal to."""
    return [n for n in FORMS if n != "sharded" or jax.local_device_count() > 1]


def pilot(
    forms: Mapping[str, Form], members: Sequence[Any], *shared: Any
) -> dict[str, float]:
    """Returns the seconds that each form takes for the runs, once compiled.

    Args:
      forms: name -> form.
      members: shorter than those to come, and as many.
      *shared: what all runs are given.
    """
    seconds = {}
    for name, form in forms.items():
        form(members, *shared)  # compiles
        began = time.perf_counter()
        form(members, *shared)
        seconds[name] = time.perf_counter() - began
    return seconds


def _side_by_side(run: Run) -> Callable[[Any, tuple], Any]:
    return jax.vmap(lambda member, shared: run(member, *shared), in_axes=(0, None))


def _stacked(members: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *members)


def _apart(found: Any, count: int) -> list[Any]:
    """Returns the first `count` of what was stacked, on the host."""
    found = jax.device_get(found)
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(count)]
