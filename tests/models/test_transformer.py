import math

import jax
import numpy as np

from lib import models
from lib.models import transformer


def _norm(x, layer):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * layer["scale"] + layer["bias"]


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _gelu(x):
    """The tanh form (arXiv 1606.08415, section 2)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(x, layer):
    q, k, v = (
        np.einsum("btd,dhe->bhte", x, layer[n]["kernel"])
        + layer[n]["bias"][None, :, None, :]
        for n in ("query", "key", "value")
    )
    weights = _softmax(np.einsum("bhte,bhse->bhts", q, k) / math.sqrt(q.shape[-1]))
    y = np.einsum("bhts,bhse->bthe", weights, v)
    return np.einsum("bthe,hed->btd", y, layer["out"]["kernel"]) + layer["out"]["bias"]


def _patches(images, p):
    b, h, w, _ = images.shape
    tokens = [
        images[:, i : i + p, j : j + p, :].reshape(b, -1)
        for i in range(0, h, p)
        for j in range(0, w, p)
    ]
    return np.stack(tokens, axis=1)


def test_forward_is_the_numpy_one(random_weights, random_images, run):
    module = transformer.Transformer(
        classes=3, layers=2, width=6, heads=2, expansion=3, patch=2
    )
    params, variables = random_weights(module, (4, 6, 2))
    images = random_images(5, 4, 6, 2)

    want = {}
    x = _patches(images.astype(np.float64), 2)
    x = x @ params["embed"]["kernel"] + params["embed"]["bias"] + params["positions"]
    want["embed"] = x
    for i in range(2):
        p = params[f"block_{i}"]
        x = x + _attention(_norm(x, p["norm_0"]), p["attention"])
        y = _norm(x, p["norm_1"]) @ p["dense_0"]["kernel"] + p["dense_0"]["bias"]
        x = x + _gelu(y) @ p["dense_1"]["kernel"] + p["dense_1"]["bias"]
        want[f"block_{i}"] = x
    x = want["pooled"] = _norm(x, params["norm"]).mean(1)
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]

    (got, features), _ = run(module, (params, variables), images)
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)
    assert features.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-4)


def test_count():
    module = transformer.Transformer(classes=10)
    params, variables = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (28, 28, 1))
    )
    embed = 16 * 64 + 64 + 49 * 64
    attention = 4 * (64 * 64 + 64)
    block = attention + (64 * 256 + 256) + (256 * 64 + 64) + 2 * 2 * 64
    want = embed + 2 * block + 2 * 64 + 64 * 10 + 10
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == want == 104_970
    assert variables == {}
