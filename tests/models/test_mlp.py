import jax
import numpy as np
import pytest

from lib import errors, models, tree
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


@pytest.mark.parametrize("train", [False, True])
def test_forward_with_batch_norm_is_the_numpy_one(
    train, random_weights, random_images, run
):
    module = mlp.MLP(classes=3, widths=(6, 5), norm=True, momentum=0.8)
    params, variables = random_weights(module, (4, 5, 2))
    images = random_images(7, 4, 5, 2)
    layers = [(f"dense_{i}", f"norm_{i}") for i in range(2)]
    layers.append(("logits", "norm_logits"))
    x, seen, stats = images.reshape(7, -1).astype(np.float64), [], {}
    for dense, norm in layers:
        x = x @ params[dense]["kernel"]
        running = variables["batch_stats"][norm]
        mean, var = running["mean"], running["var"]
        stats[norm] = dict(running)
        if train:
            mean, var = x.mean(0), x.var(0)
            stats[norm] = {
                "mean": 0.8 * running["mean"] + 0.2 * mean,
                "var": 0.8 * running["var"] + 0.2 * var,
            }
        x = (x - mean) / np.sqrt(var + 1e-5)
        x = x * params[norm]["scale"] + params[norm]["bias"]
        x = x if dense == "logits" else np.maximum(x, 0)
        seen.append(x)
    (logits, features), after = run(module, (params, variables), images, train=train)
    np.testing.assert_allclose(logits, seen[-1], rtol=1e-4, atol=1e-4)
    for i in range(2):
        np.testing.assert_allclose(features[f"dense_{i}"], seen[i], atol=1e-4)
    for name, values in stats.items():
        for key, value in values.items():
            got = after["batch_stats"][name][key]
            np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5)
    assert set(params["dense_0"]) == {"kernel"}


def test_norm_is_true_or_false():
    with pytest.raises(errors.UserError, match="MLP.norm: expected True or False"):
        mlp.MLP(classes=3, norm="yes")
