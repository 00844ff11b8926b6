"""Runs side by side, and dealt out to devices, are the runs one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.train import forms


def run(member, shared):
    """Takes as many steps as the member has for its own: masked where others go on."""

    def advance(state):
        count, x = state
        return count + 1, jnp.sin(x) * shared + member["scale"]

    count, x = jax.lax.while_loop(
        lambda state: state[0] < member["steps"], advance, (0, member["start"])
    )
    return {"count": count, "x": x}


def members(count):
    rng = np.random.default_rng(0)
    return [
        {
            "steps": jnp.int32(rng.integers(0, 9)),
            "start": jnp.float32(rng.normal()),
            "scale": jnp.float32(rng.normal()),
        }
        for _ in range(count)
    ]


def by_hand(member, shared):
    x = float(member["start"])
    for _ in range(int(member["steps"])):
        x = np.sin(x) * shared + float(member["scale"])
    return x


@pytest.mark.parametrize("name", forms.FORMS)
@pytest.mark.parametrize("count", [1, 8, 11])
def test_every_form_gives_each_run_its_own(name, count):
    some = members(count)
    found = forms.FORMS[name](run)(some, jnp.float32(0.7))
    assert len(found) == count
    for member, one in zip(some, found, strict=True):
        assert one["count"] == member["steps"]
        np.testing.assert_allclose(one["x"], by_hand(member, 0.7), rtol=1e-5)


def test_each_device_has_its_part_of_the_runs():
    seen = []

    def noting(member, shared):
        jax.debug.callback(lambda x: seen.append(int(x)), jax.lax.axis_index("runs"))
        return run(member, shared)

    forms.sharded(noting)(members(16), jnp.float32(1.0))
    jax.effects_barrier()
    assert sorted(set(seen)) == list(range(8))


def test_a_pilot_times_each_form():
    made = {name: forms.FORMS[name](run) for name in forms.possible()}
    seconds = forms.pilot(made, members(3), jnp.float32(0.5))
    assert list(seconds) == ["sequential", "vmapped", "sharded"]
    assert all(s > 0 for s in seconds.values())
