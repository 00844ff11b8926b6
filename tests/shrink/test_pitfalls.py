"""Programs that were once followed or run wrongly, each as small as it gets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, shrink
from tests.shrink import models


def halved(f, weights, x):
    """Returns the groups, and the difference of masked and small with half gone."""
    groups = shrink.groups(f)(weights, x)
    gone = {g.name: list(range(g.size // 2)) for g in groups.groups}
    plan = shrink.make(groups, gone)
    return groups, shrink.difference(f, plan, weights, [(x,)])


class Indexed(nn.Module):
    """Positions chosen by NumPy's integers, before and behind what is cut."""

    @nn.compact
    def __call__(self, x):
        x = x[:, np.array([1, 0, 3, 2, 4, 5])]
        table = self.param("table", nn.initializers.normal(1.0), (7, 3))
        bias = table[np.array([[0, 1], [5, 6]])].sum((0, 1))
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x))) + bias[None]


def test_constants_of_numpy_reach_functions_inside():
    case = models.case(Indexed(), models.floats(4, 6))
    groups, (worst, largest) = halved(case.f, case.weights, case.x)
    assert [(g.name, g.size) for g in groups.groups] == [("Dense_1", 8)]
    assert worst < 1e-5 * largest

    @jax.jit
    def added(z, c):
        return z + c

    def f(w, x):
        return added(x @ w["a"], np.arange(8.0, dtype=np.float32)[None]) @ w["b"]

    weights = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 2))}
    assert halved(f, weights, jnp.ones((2, 3)))[1][0] == 0


@pytest.mark.parametrize(
    ("exponent", "pinned"), [(-0.5, True), (0.5, False), (-1, True)]
)
def test_powers_that_are_not_defined_at_0_pin(exponent, pinned):
    def f(w, x):
        return (x @ (w["k"] * jnp.sum(w["k"] ** 2, 0, keepdims=True) ** exponent)) @ (
            w["b"]
        )

    weights = {"k": jnp.full((3, 4), 0.5), "b": jnp.ones((4, 2))}
    groups, (worst, _) = halved(f, weights, jnp.ones((2, 3)))
    assert (not groups.groups) == pinned and worst < 1e-5
    if pinned:
        assert "is not defined where a mask makes it 0" in groups.pinned[0].why


def test_what_nothing_depends_on_is_no_group():
    def f(w, x):
        jnp.tanh(x @ w["aside"])  # computed, not returned
        return jnp.tanh(x @ w["a"]) @ w["b"]

    shapes = {"a": (3, 4), "b": (4, 2), "aside": (3, 5), "unread": (6, 7)}
    weights = {name: jnp.ones(shape) for name, shape in shapes.items()}
    groups = shrink.groups(f)(weights, jnp.ones((2, 3)))
    assert [g.paths() for g in groups.groups] == [("a", "b")]
    why = {p.path: p.why for p in groups.pinned if p.path in ("aside", "unread")}
    assert set(why.values()) == {"nothing that is returned depends on it"}


def test_a_name_with_a_slash_is_told():
    weights = {"params": {"Dense_0/kernel/scale": jnp.ones(3)}}
    with pytest.raises(errors.UserError, match="has a slash in one name"):
        shrink.groups(lambda w, x: x)(weights, jnp.ones(3))


def test_bits_of_floats_pin_them():
    def f(w, x):
        bits = jax.lax.bitcast_convert_type(jnp.tanh(x @ w["a"]), jnp.int8)
        return bits.astype(jnp.float32).sum(-1) @ w["b"]

    weights = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
    groups = shrink.groups(f)(weights, jnp.ones((2, 3)))
    assert not any("a" in g.paths() for g in groups.groups)


def test_kernels_that_are_all_zeros_are_not_one_weight():
    params = {"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}
    assert shrink.twins({"params": params}) == []
