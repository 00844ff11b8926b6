import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lib import models, tree
from lib.models import cnn

EPSILON = 1e-5


def _conv_same(x, kernel):
    """3x3 cross-correlation with zero padding, by explicit loops over places."""
    b, h, w, _ = x.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((b, h, w, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            window = x[:, i : i + 3, j : j + 3, :]
            y[:, i, j, :] = np.einsum("bhwc,hwco->bo", window, kernel)
    return y


def _pool(x):
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def _forward(module, params, stats, images, train):
    """The network in NumPy; returns logits, features and the statistics after it."""
    new, features = {}, {}
    x = images.astype(np.float64)
    for s in range(len(module.widths)):
        if s:
            x = _pool(x)
        for d in range(module.depth):
            name = f"norm_{s}_{d}"
            x = _conv_same(x, params[f"conv_{s}_{d}"]["kernel"])
            running = stats[name]
            mean, var = running["mean"], running["var"]
            if train:
                mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
                keep = module.momentum
                new[name] = {
                    "mean": keep * running["mean"] + (1 - keep) * mean,
                    "var": keep * running["var"] + (1 - keep) * var,
                }
            x = (x - mean) / np.sqrt(var + EPSILON)
            x = np.maximum(x * params[name]["scale"] + params[name]["bias"], 0)
        features[f"stage_{s}"] = x
    x = features["pooled"] = x.mean((1, 2))
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    return logits, features, new or stats


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "module",
    [
        cnn.CNN(classes=3, widths=(4,), depth=1),
        cnn.CNN(classes=3, widths=(4, 5), depth=2, momentum=0.7),
    ],
    ids=["one stage", "two stages"],
)
def test_forward_is_the_numpy_one(module, train, random_weights, random_images, run):
    params, variables = random_weights(module, (5, 6, 2))
    images = random_images(7, 5, 6, 2)
    logits, want, stats = _forward(
        module, params, variables["batch_stats"], images, train
    )
    (got, features), after = run(module, (params, variables), images, train=train)
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)
    assert features.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(after) == jax.tree.structure(variables)
    for path, value in tree.flatten(stats).items():
        np.testing.assert_allclose(
            tree.get(after["batch_stats"], path), value, rtol=1e-4, atol=1e-5
        )


def test_shapes_and_count():
    params, variables = jax.eval_shape(
        lambda: models.init(cnn.CNN(classes=10), jax.random.key(0), (8, 8, 1))
    )
    assert {path: leaf.shape for path, leaf in tree.flatten(params).items()} == {
        "conv_0_0/kernel": (3, 3, 1, 32),
        "conv_1_0/kernel": (3, 3, 32, 64),
        "conv_2_0/kernel": (3, 3, 64, 128),
        "norm_0_0/scale": (32,),
        "norm_0_0/bias": (32,),
        "norm_1_0/scale": (64,),
        "norm_1_0/bias": (64,),
        "norm_2_0/scale": (128,),
        "norm_2_0/bias": (128,),
        "logits/kernel": (128, 10),
        "logits/bias": (10,),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 94_186
    assert {path: leaf.shape for path, leaf in tree.flatten(variables).items()} == {
        f"batch_stats/norm_{s}_0/{stat}": (width,)
        for s, width in enumerate((32, 64, 128))
        for stat in ("mean", "var")
    }


def test_a_bound_axis_gives_the_statistics_of_the_whole_batch(
    random_weights, random_images, run
):
    module = cnn.CNN(classes=3, widths=(4, 4))
    params, variables = random_weights(module, (4, 4, 1))
    images = random_images(16, 4, 4, 1)
    (want, _), stats = run(module, (params, variables), images, train=True)

    split = models.make_apply(models.bind_axis(module, "devices"))

    def shard(images):
        (logits, _), after = split(params, variables, images, train=True, key=None)
        return logits, after

    pmapped = jax.pmap(shard, axis_name="devices")
    got, after = pmapped(images.reshape(8, 2, 4, 4, 1))
    np.testing.assert_allclose(got.reshape(16, 3), want, rtol=1e-4, atol=1e-4)
    for path, value in tree.flatten(stats).items():
        for device in range(8):
            np.testing.assert_allclose(
                tree.get(after, path)[device], value, rtol=1e-4, atol=1e-5
            )


def test_a_sharded_batch_needs_no_axis(random_weights, random_images):
    module = cnn.CNN(classes=3, widths=(4, 4))
    params, variables = random_weights(module, (4, 4, 1))
    images = random_images(16, 4, 4, 1)
    apply = models.make_apply(module)

    @jax.jit
    def step(images):
        return apply(params, variables, images, train=True, key=None)

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("data",))
    spread = jax.device_put(images, jax.sharding.NamedSharding(mesh, P("data")))
    (want, _), stats = step(jnp.asarray(images))
    (got, _), after = step(spread)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    for path, value in tree.flatten(stats).items():
        np.testing.assert_allclose(tree.get(after, path), value, rtol=1e-4, atol=1e-5)
