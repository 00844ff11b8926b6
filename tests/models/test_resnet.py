import gzip
import pathlib

import jax
import numpy as np
import pytest

from lib import errors, models, tree
from lib.models import foreign, resnet

EPSILON = 1e-5
SHARED = pathlib.Path(__file__).parents[2].parent / "shared/data"


def _conv(x, kernel, stride):
    """3x3 cross-correlation, a border of one zero, by explicit loops over places."""
    b, h, w, _ = x.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((b, -(-h // stride), -(-w // stride), kernel.shape[-1]))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            top, left = i * stride, j * stride
            window = x[:, top : top + 3, left : left + 3, :]
            y[:, i, j, :] = np.einsum("bhwc,hwco->bo", window, kernel)
    return y


def _norm(x, params, stats):
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + EPSILON)
    return x * params["scale"] + params["bias"]


def _block(x, params, stats, stride):
    y = _conv(x, params["conv_0"]["kernel"], stride)
    y = np.maximum(_norm(y, params["norm_0"], stats["norm_0"]), 0)
    y = _conv(y, params["conv_1"]["kernel"], 1)
    y = _norm(y, params["norm_1"], stats["norm_1"])
    around = np.zeros_like(y)
    before = (y.shape[-1] - x.shape[-1]) // 2
    for c in range(x.shape[-1]):
        around[..., before + c] = x[:, ::stride, ::stride, c]
    return np.maximum(y + around, 0)


def test_forward_is_the_numpy_one(random_weights, random_images, run):
    # 7 wide: strides of 2 leave 4, then 2; 3 to 6 channels: one before, two after.
    module = resnet.ResNet(classes=5, depth=8, widths=(3, 6, 6))
    params, variables = random_weights(module, (8, 7, 2))
    stats = variables["batch_stats"]
    images = random_images(3, 8, 7, 2)
    want = {}
    x = _conv(images.astype(np.float64), params["conv"]["kernel"], 1)
    x = want["stem"] = np.maximum(_norm(x, params["norm"], stats["norm"]), 0)
    for s, stride in enumerate((1, 2, 2)):
        name = f"block_{s}_0"
        x = want[name] = _block(x, params[name], stats[name], stride)
    assert x.shape == (3, 2, 2, 6)
    x = want["pooled"] = x.mean((1, 2))
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]

    (got, features), after = run(module, (params, variables), images)
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)
    assert features.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-4)
    assert jax.tree.all(jax.tree.map(np.array_equal, after, variables))


@pytest.mark.slow
def test_training_keeps_a_tenth_of_the_batch_statistics(
    random_weights, random_images, run
):
    module = resnet.ResNet(classes=2, depth=8, widths=(3, 4, 5))
    params, variables = random_weights(module, (6, 6, 1))
    images = random_images(9, 6, 6, 1)
    _, after = run(module, (params, variables), images, train=True)
    x = _conv(images.astype(np.float64), params["conv"]["kernel"], 1)
    old, new = (v["batch_stats"]["norm"] for v in (variables, after))
    for stat, batch in (("mean", x.mean((0, 1, 2))), ("var", x.var((0, 1, 2)))):
        want = 0.9 * old[stat] + 0.1 * batch
        np.testing.assert_allclose(new[stat], want, rtol=1e-4, atol=1e-5)
    for path, value in tree.flatten(variables).items():
        assert not np.allclose(tree.get(after, path), value)


@pytest.mark.slow
# Layers and parameters as table 6 of the paper has them, in millions.
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_sizes_are_the_papers(depth, millions):
    params, _ = jax.eval_shape(
        lambda k: models.init(resnet.ResNet(classes=10, depth=depth), k, (32, 32, 3)),
        jax.random.key(0),
    )
    flat = tree.flatten(params)
    layers = [x for path, x in flat.items() if path.endswith("kernel")]
    assert len(layers) == depth
    count = sum(x.size for x in flat.values())
    assert round(count / 1e6, len(str(millions)) - 2) == millions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 18}, "ResNet.depth: expected 6 n \\+ 2 .*, got 18"),
        ({"depth": 2}, "got 2"),
        ({"widths": (16, 32)}, "ResNet.widths: expected a tuple of 3 whole"),
        ({"widths": (16, 8, 8)}, "none smaller than the one before"),
        ({"momentum": 1.0}, "ResNet.momentum"),
    ],
)
def test_a_bad_field_is_named(fields, message):
    with pytest.raises(errors.UserError, match=message):
        models.build("resnet", classes=10, **fields)


def _test_images():
    """Returns CIFAR-10's test images, 500 in a file above one another, and labels."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    folder = SHARED / "cifar10"
    if not folder.exists():
        pytest.skip(f"needs the images of CIFAR-10: {folder} is not there")
    strips = []
    for path in sorted((folder / "strips").glob("test_*.webp")):
        with image.open(path) as strip:
            strips.append(np.asarray(strip.convert("RGB")).reshape(-1, 32, 32, 3))
    with gzip.open(folder / "test_index.txt.gz", "rt") as lines:
        labels = [int(line.split()[0]) for line in lines]
    return np.concatenate(strips), np.array(labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file", "errors_made"),
    [(20, "resnet20-12fca82f.th", 827), (56, "resnet56-4bfd9763.th", 661)],
)
def test_published_weights_make_as_many_errors_as_published(depth, file, errors_made):
    """8.27 and 6.61 % of the 10,000 test images, without one more or less."""
    path = SHARED / "weights_resnet_cifar10" / file
    if not path.exists():
        pytest.skip(f"needs the published weights: {path} is not there")
    images, labels = _test_images()
    module = models.build("resnet", classes=10, depth=depth)
    params, variables = foreign.load(path, module, (32, 32, 3))
    apply = models.make_apply(module)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)

    @jax.jit
    def classes(batch):
        x = (batch / np.float32(255) - mean[None, None, None]) / std[None, None, None]
        (logits, _), _ = apply(params, variables, x, train=False, key=None)
        return logits.argmax(-1)

    found = [classes(images[i : i + 100]) for i in range(0, len(images), 100)]
    assert (np.concatenate(found) != labels).sum() == errors_made
