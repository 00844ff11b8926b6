"""Small models with random weights, biases and statistics included."""

import functools

import jax
import numpy as np
import pytest

from lib import models


def _random(module, shape, seed=0):
    """Returns `(params, variables)` in which no leaf is the identity it starts as."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.normal(size=leaf.shape, scale=0.3).astype(np.float32)
        # Variances are positive.
        return np.exp(x) if path[-1].key == "var" else x

    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), shape))
    return jax.tree.map_with_path(draw, shapes)


def _images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _run(module, weights, images, *, train=False, key=None):
    params, variables = weights
    apply = functools.partial(models.make_apply(module), train=train)
    return jax.jit(apply)(params, variables, images, key=key)


@pytest.fixture(scope="session")
def random_weights():
    return _random


@pytest.fixture(scope="session")
def random_images():
    return _images


@pytest.fixture(scope="session")
def run():
    """`run(module, (params, variables), images, *, train, key)`, jitted."""
    return _run
