"""Metrics over a whole split against NumPy over all examples at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import models, program
from lib.data import pipeline, splits
from lib.train import evaluate, step
from tests.train import jobs

COUNT = 41


def expected(params, split):
    """Softmax regression in float64, every example once."""
    x = (split.source.fields["input"].astype(np.float64) - 80) / 50
    layer = jax.tree.map(np.float64, params["logits"])
    logits = x.reshape(len(x), -1) @ layer["kernel"] + layer["bias"]
    top = logits.max(axis=1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    labels = split.source.fields["label"]
    return {
        "accuracy": np.mean(logits.argmax(axis=1) == labels),
        "loss": -np.mean(log_p[np.arange(len(labels)), labels]),
        "count": len(labels),
    }


@pytest.mark.parametrize("kind", [splits.Validation, splits.Test])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 40, 41, 64])
def test_every_example_counts_once_whatever_the_batches(batch_size, kind):
    module = jobs.mlp(widths=())
    params, variables = models.init(module, jax.random.key(2), jobs.SHAPE)
    params = jax.tree.map(lambda w: w * 3 + 0.1, params)
    split = jobs.split(kind, COUNT, seed=5)
    prepare = pipeline.preparation(jobs.NORMALISATION, None)
    measure = evaluate.make(
        step.Network(models.make_apply(module)), prepare, batch_size
    )
    found, wanted = measure(params, variables, {}, split), expected(params, split)
    assert 0 < found["accuracy"] < 1
    assert found["accuracy"] == wanted["accuracy"]
    assert found["count"] == wanted["count"] and isinstance(found["count"], int)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)


def test_activations_are_rounded_as_the_rules_say():
    """Two bits over a narrow range: all inputs become one of four numbers."""
    module = jobs.mlp(widths=())
    params, variables = models.init(module, jax.random.key(2), jobs.SHAPE)
    apply = models.make_apply(module)
    example = jnp.zeros((1, *jobs.SHAPE))
    (site,) = program.sites(apply)(params, variables, example, train=False, key=None)
    bounds = {site.name: {"lhs": (jnp.float32(-1.0), jnp.float32(2.0))}}
    rules = ((".", {"bits": 2, "symmetric": False}),)
    prepare = pipeline.preparation(jobs.NORMALISATION, None)
    split = jobs.split(splits.Test, COUNT, seed=5)
    measure = evaluate.make(step.Network(apply, rules), prepare, 16)

    pixels = (
        np.clip(np.round((split.source.fields["input"] - 80.0) / 50), -1, 2) * 50 + 80
    )
    rounded = jobs.split(splits.Test, COUNT, seed=5)
    rounded.source.fields["input"][:] = pixels.astype(np.uint8)
    found, wanted = measure(params, variables, bounds, split), expected(params, rounded)
    assert found["accuracy"] == wanted["accuracy"]
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)


def test_batch_norm_uses_running_statistics():
    """So an example's logits do not depend on its neighbours, nor on the padding."""
    module = jobs.cnn()
    params, variables = models.init(module, jax.random.key(2), jobs.SHAPE)
    split = jobs.split(splits.Test, 10)
    prepare = pipeline.preparation(jobs.NORMALISATION, None)
    network = step.Network(models.make_apply(module))
    one, all_ = (
        evaluate.make(network, prepare, size)(params, variables, {}, split)
        for size in (1, 16)
    )
    assert one["accuracy"] == all_["accuracy"]
    np.testing.assert_allclose(one["loss"], all_["loss"], rtol=1e-5)
