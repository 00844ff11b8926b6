"""The group lasso against sums written out, and its slope where groups are zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, objectives
from lib.objectives.group_lasso import group_lasso

RNG = np.random.default_rng(0)
PARAMS = {
    "dense": {"kernel": RNG.normal(size=(3, 2)), "bias": np.ones(2)},
    "conv": {"kernel": RNG.normal(size=(2, 3, 4, 5))},
}


def value(groups, params=PARAMS, pattern="kernel"):
    term = group_lasso(groups=groups, pattern=pattern)
    return term(None, None, jax.tree.map(jnp.asarray, params), None)


def naive(groups, params=PARAMS):
    total = 0.0
    for layer in params.values():
        w = layer["kernel"]
        slices = {
            "out": [w[..., o] for o in range(w.shape[-1])],
            "in": [w[..., i, :] for i in range(w.shape[-2])],
        }
        for group in slices[groups]:
            total += np.sqrt(group.size) * np.sqrt((group**2).sum())
    return total


def test_is_the_sum_of_norms():
    for groups in ("out", "in"):
        np.testing.assert_allclose(value(groups), naive(groups), rtol=1e-6)
    both = naive("out") + naive("in")
    np.testing.assert_allclose(value("both"), both, rtol=1e-6)


def test_literal():
    kernel = {"a": {"kernel": np.array([[3.0, 0.0], [4.0, 0.0]])}}
    np.testing.assert_allclose(value("out", kernel), 5 * np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(value("in", kernel), 7 * np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("groups", ["out", "in"])
def test_slope_is_the_direction_of_the_group_and_0_at_0(groups):
    w = RNG.normal(size=(3, 4))
    w[:, 1] = 0
    w[2] = 0
    grad = jax.grad(lambda p: value(groups, p))({"a": {"kernel": jnp.float32(w)}})
    axis = 0 if groups == "out" else 1
    norms = np.sqrt((w**2).sum(axis, keepdims=True))
    unit = np.divide(w, norms, out=np.zeros_like(w), where=norms > 0)
    want = np.sqrt(w.shape[axis]) * unit
    np.testing.assert_allclose(grad["a"]["kernel"], want, rtol=1e-5, atol=1e-7)


def test_is_a_term_by_name():
    settings = {"group_lasso": {"weight": 2.0, "groups": "out", "pattern": "kernel"}}
    objective = objectives.build(("group_lasso",), settings)
    loss, terms = objective(None, None, jax.tree.map(jnp.asarray, PARAMS), None)
    np.testing.assert_allclose(loss, 2 * terms["group_lasso"])


def test_mistakes():
    with pytest.raises(errors.UserError, match="did you mean 'out'"):
        group_lasso(groups="outs")
    with pytest.raises(errors.UserError, match="has no input channels; groups='out'"):
        value("in", {"norm": {"scale": np.ones(3)}}, pattern="scale")
    with pytest.raises(errors.UserError, match="matches nothing"):
        value("out", pattern="kernal")
