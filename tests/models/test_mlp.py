import jax
import numpy as np
import pytest

from lib import models, tree
from lib.models import mlp


@pytest.mark.parametrize("widths", [(), (7,), (7, 5), (6, 5, 4)])
def test_forward_is_the_numpy_one(widths, random_weights, random_images, run):
    module = mlp.MLP(classes=3, widths=widths)
    params, variables = random_weights(module, (4, 5, 2))
    images = random_images(6, 4, 5, 2)

    x = images.reshape(6, -1).astype(np.float64)
    hidden = {}
    for i in range(len(widths)):
        layer = params[f"dense_{i}"]
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
        hidden[f"dense_{i}"] = x
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]

    (got, features), _ = run(module, (params, variables), images)
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-5)
    assert features.keys() == hidden.keys()
    for name, value in hidden.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-5)


def test_default_is_lenet_300_100():
    params, variables = jax.eval_shape(
        lambda: models.init(mlp.MLP(classes=10), jax.random.key(0), (28, 28, 1))
    )
    shapes = {path: leaf.shape for path, leaf in tree.flatten(params).items()}
    assert shapes == {
        "dense_0/kernel": (784, 300),
        "dense_0/bias": (300,),
        "dense_1/kernel": (300, 100),
        "dense_1/bias": (100,),
        "logits/kernel": (100, 10),
        "logits/bias": (10,),
    }
    assert sum(np.prod(s) for s in shapes.values()) == 266_610
    assert variables == {}
