import json

import jax
import numpy as np
import pytest

from lib import errors
from lib.data import examples, normalise, splits


def made(images, kind=splits.Train):
    labels = np.zeros(len(images), np.int32)
    return kind(
        "made", examples.Arrays({"input": images, "label": labels}), 1, images.shape[1:]
    )


def test_measure_is_numpy_mean_and_std():
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 3), np.uint8)
    images[..., 1] //= 7
    found = normalise.measure(made(images))
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, images.std((0, 1, 2)), rtol=1e-12)


def test_constant_channel_has_deviation_one():
    found = normalise.measure(made(np.full((4, 2, 2, 1), 9, np.uint8)))
    assert found == normalise.Normalisation((9.0,), (1.0,))


def test_only_train_is_measured(digits):
    with pytest.raises(TypeError):
        normalise.measure(digits.test)
    pixels = digits.train.source.fields["input"].astype(np.float64)
    np.testing.assert_allclose(digits.inputs.mean, [pixels.mean()])
    np.testing.assert_allclose(digits.inputs.std, [pixels.std()])
    everything = np.concatenate(
        [
            p.source.fields["input"]
            for p in (digits.train, digits.validation, digits.test)
        ]
    )
    assert abs(everything.mean() - digits.inputs.mean[0]) > 1e-3


def test_apply_equals_numpy_bit_for_bit_and_standardises():
    images = np.random.default_rng(1).integers(0, 256, (64, 5, 6, 3), np.uint8)
    n = normalise.measure(made(images))
    got = np.asarray(jax.jit(lambda x: normalise.apply(n, x))(images))
    inverse = np.float32(1) / np.float32(n.std)
    want = (images.astype(np.float32) - np.float32(n.mean)) * inverse
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std((0, 1, 2)), 1, atol=1e-5)


def test_same_as_scaling_to_one_first():
    images = np.random.default_rng(2).integers(0, 256, (8, 4, 4, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    n = normalise.Normalisation(tuple(255 * mean), tuple(255 * std))
    want = (images / 255 - mean) / std
    np.testing.assert_allclose(normalise.apply(n, images), want, atol=1e-5)


def test_plain_survives_json():
    n = normalise.Normalisation((0.1, 33.3), (7.25, 1 / 3))
    assert normalise.from_plain(json.loads(json.dumps(n.plain()))) == n


def test_imagenet_is_the_published_one_whatever_the_images():
    published = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of pixels from 0 to 1
    found = normalise.NORMALISATIONS["imagenet"](made(np.zeros((4, 2, 2, 3), np.uint8)))
    np.testing.assert_allclose(np.asarray(found) / 255, published, rtol=1e-12)
    with pytest.raises(errors.UserError, match="3 channels, .* shape \\(2, 2, 1\\)"):
        normalise.imagenet(made(np.zeros((4, 2, 2, 1), np.uint8)))
