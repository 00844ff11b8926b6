import jax
import numpy as np

from lib import models, tree
from lib.models import lenet5


def _conv(x, kernel, bias):
    """Valid cross-correlation by explicit loops over places."""
    b, h, w, _ = x.shape
    kh, kw, _, out = kernel.shape
    y = np.zeros((b, h - kh + 1, w - kw + 1, out))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            window = x[:, i : i + kh, j : j + kw, :]
            y[:, i, j, :] = np.einsum("bhwc,hwco->bo", window, kernel) + bias
    return y


def _pool(x):
    b, h, w, c = x.shape
    y = np.zeros((b, h // 2, w // 2, c))
    for i in range(h // 2):
        for j in range(w // 2):
            y[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
    return y


def test_forward_is_the_numpy_one(random_weights, random_images, run):
    module = lenet5.LeNet5(classes=4, widths=(3, 5, 7))
    # 19 columns: conv 15, of which pooling drops the last.
    params, variables = random_weights(module, (18, 19, 2))
    images = random_images(3, 18, 19, 2)

    want = {}
    x = images.astype(np.float64)
    for i in (1, 2):
        layer = params[f"conv{i}"]
        x = want[f"conv{i}"] = _conv(x, layer["kernel"], layer["bias"])
        x = want[f"pool{i}"] = _pool(x)
    x = x.reshape(3, -1) @ params["ip1"]["kernel"] + params["ip1"]["bias"]
    x = want["ip1"] = np.maximum(x, 0)
    logits = x @ params["ip2"]["kernel"] + params["ip2"]["bias"]

    (got, features), _ = run(module, (params, variables), images)
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)
    assert features.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-4)
    # Caffe has no activation after its convolutions.
    assert (features["conv1"] < 0).any()
    assert (features["pool2"] < 0).any()


def test_has_caffes_shapes_and_filler():
    params, variables = models.init(
        lenet5.LeNet5(classes=10), jax.random.key(0), (28, 28, 1)
    )
    flat = tree.flatten(params)
    assert {path: leaf.shape for path, leaf in flat.items()} == {
        "conv1/kernel": (5, 5, 1, 20),
        "conv1/bias": (20,),
        "conv2/kernel": (5, 5, 20, 50),
        "conv2/bias": (50,),
        "ip1/kernel": (800, 500),
        "ip1/bias": (500,),
        "ip2/kernel": (500, 10),
        "ip2/bias": (10,),
    }
    assert sum(leaf.size for leaf in flat.values()) == 431_080
    assert variables == {}
    for layer, fan_in in {"conv1": 25, "conv2": 500, "ip1": 800, "ip2": 500}.items():
        kernel = np.asarray(params[layer]["kernel"])
        bound = np.sqrt(3 / fan_in)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_array_equal(params[layer]["bias"], 0)
    np.testing.assert_allclose(np.var(params["ip1"]["kernel"]), 1 / 800, rtol=0.01)
