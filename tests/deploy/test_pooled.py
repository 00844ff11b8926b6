import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.deploy.pooled import pooled
from lib.models import pooling


def primitives(f, x):
    return [eqn.primitive.name for eqn in jax.make_jaxpr(f)(x).eqns]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 6, 8, 3), jnp.float32),
        pytest.param((1, 5, 7, 2), jnp.float32, marks=pytest.mark.slow),
        pytest.param((1, 4, 4, 2), jnp.int32, marks=pytest.mark.slow),
    ],
)
def test_a_maximum_of_slices_is_a_pooling(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape, scale=50), dtype)

    def f(x):
        return pooling.max_pool(-x) + 1

    assert "reduce_window_max" in primitives(pooled(f), x)
    np.testing.assert_array_equal(jax.jit(pooled(f))(x), f(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.maximum(x[:4:2], x[1:4:2]),  # not all of the windows
        lambda x: jnp.maximum(x[:-1:3], x[1::3]),  # not all of a window
        lambda x: jnp.maximum(x[:-1:2], (2 * x)[1::2]),  # of two values
        lambda x: jnp.minimum(x[:-1:2], x[1::2]),
        lambda x: {"a": x[::2] + 1, "b": x},
    ],
)
def test_other_slices_are_left(f):
    x = jnp.arange(9.0)
    assert "reduce_window_max" not in primitives(pooled(f), x)
    jax.tree.map(np.testing.assert_array_equal, pooled(f)(x), f(x))
