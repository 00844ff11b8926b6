import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib import models
from lib.models.dropout import Dropout

SMALL = {
    "mlp": {"widths": (8,)},
    "lenet5": {"widths": (2, 3, 8)},
    "cnn": {"widths": (4, 8)},
    "transformer": {"layers": 1, "width": 8, "heads": 2},
    "resnet": {"depth": 8, "widths": (4, 4, 8)},
    "imagenet_resnet": {"depth": 10, "widths": (4, 4, 4, 8), "stem_width": 4},
    "wide_resnet": {"depth": 10, "factor": 1},
    "mobilenet_v1": {"width": 0.1},
    "mobilenet_v2": {"width": 0.1, "depth": 0.1},
    "efficientnet_lite": {"width": 0.1, "depth": 0.1},
    "vit": {"layers": 1, "width": 8, "heads": 2, "patch": 8},
}
OF_TEXT = {"encoder", "decoder"}  # see test_text
# Where what follows the dropout is not linear.
CURVED = {"transformer", "vit", "wide_resnet"}


def _build(name, dropout):
    return models.build(name, classes=3, dropout=dropout, **SMALL[name])


def test_every_model_is_covered():
    assert SMALL.keys() | OF_TEXT == models.MODELS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_eval_has_no_dropout(name, random_weights, random_images):
    plain, dropped = _build(name, 0.0), _build(name, 0.4)
    params, variables = random_weights(plain, (16, 16, 1))
    models.check(dropped, params, variables, (16, 16, 1))
    images = random_images(4, 16, 16, 1)

    def program(module):
        apply = models.make_apply(module)
        return str(
            jax.make_jaxpr(
                lambda p: apply(p, variables, images, train=False, key=None)
            )(params)
        )

    assert program(dropped) == program(plain)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_training_draws_from_the_key_and_keeps_the_mean(
    name, random_weights, random_images, run
):
    plain, dropped = _build(name, 0.0), _build(name, 0.4)
    params, variables = random_weights(plain, (16, 16, 1))
    images = random_images(2, 16, 16, 1)
    apply = models.make_apply(dropped)

    def logits(key):
        return apply(params, variables, images, train=True, key=key)[0][0]

    keys = jax.random.split(jax.random.key(0), 1000)
    twice = jnp.concatenate([keys, keys[:1]])
    *draws, again = np.asarray(jax.jit(jax.vmap(logits))(twice), np.float64)
    np.testing.assert_array_equal(again, draws[0])
    spread = np.std(draws, axis=0)
    assert (spread > 0).all()
    if name not in CURVED:
        (want, _), _ = run(plain, (params, variables), images, train=True)
        error = np.abs(np.mean(draws, axis=0) - want)
        assert (error < 5 * spread / np.sqrt(len(keys))).all()


def test_features_come_before_their_dropout(random_weights, random_images, run):
    module = models.build("mlp", classes=3, widths=(50,), dropout=0.9)
    weights = random_weights(module, (4, 4, 1))
    images = random_images(4, 4, 4, 1)
    (_, want), _ = run(module, weights, images)
    (_, got), _ = run(module, weights, images, train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(got["dense_0"], want["dense_0"])


@pytest.mark.parametrize("axes", [(), (1, 2)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_a_traced_rate_draws_what_flax_draws(rate, axes):
    x = jax.random.normal(jax.random.key(1), (6, 5, 4))
    rngs = {"dropout": jax.random.key(2)}
    theirs = nn.Dropout(rate, broadcast_dims=axes, deterministic=False)
    want = theirs.apply({}, x, rngs=rngs)

    def ours(rate):
        return Dropout(rate, False, axes).apply({}, x, rngs=rngs)

    np.testing.assert_array_equal(ours(rate), want)
    np.testing.assert_allclose(jax.jit(ours)(rate), want, rtol=1e-6)


def test_models_at_several_rates_are_one_program(random_weights, random_images):
    rates = jnp.array([0.0, 0.2, 0.5])
    weights = random_weights(_build("mlp", 0.0), (4, 4, 1))
    images, key = random_images(4, 4, 4, 1), jax.random.key(0)

    def logits(rate):
        apply = models.make_apply(_build("mlp", rate))
        return apply(*weights, images, train=True, key=key)[0][0]

    for rate, got in zip(rates, jax.vmap(logits)(rates), strict=True):
        np.testing.assert_allclose(got, logits(float(rate)), rtol=1e-5, atol=1e-6)
