import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib.models import pooling


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (1, 7, 5, 2), (1, 2, 2, 1)])
def test_is_flax_s_pooling(shape):
    x = jnp.float32(np.random.default_rng(0).normal(size=shape))
    want = nn.max_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(pooling.max_pool(x), want)
    upstream = jnp.cos(want)
    grads = [
        jax.grad(lambda x, pool=pool: jnp.sum(pool(x) * upstream))(x)
        for pool in (pooling.max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    ]
    np.testing.assert_array_equal(*grads)


def test_equal_maxima_share_the_gradient():
    x = jnp.float32([[1, 1], [0, -1]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: jnp.sum(pooling.max_pool(x)))(x)
    assert grad.ravel().tolist() == [0.5, 0.5, 0, 0]
