"""What the convolutional networks share: borders, rounded widths, dropped branches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib import models
from lib.models import convolution
from tests.deploy import exported


class Branch(nn.Module):
    """Three quarters of what it is given."""

    train: bool

    @nn.compact
    def __call__(self, x):
        return convolution.without_some(x, 0.25, self.train)


# Channels as the published networks have them: MobileNetV2 at 1.4 and 0.35,
# EfficientNet-Lite4 at 1.4, MobileNet at 0.25.
@pytest.mark.parametrize(
    ("width", "want"),
    [
        *((32 * 1.4, 48), (16 * 1.4, 24), (24 * 1.4, 32), (32 * 0.35, 16)),
        *((24 * 0.35, 8), (64 * 0.35, 24), (96 * 0.35, 32), (40 * 1.4, 56)),
        *((112 * 1.4, 160), (192 * 1.4, 272), (32 * 0.25, 8), (1, 8)),
    ],
)
def test_scaled_widths_are_the_published(width, want):
    assert convolution.rounded(width) == want


@pytest.mark.parametrize(
    ("same", "first"),
    [(False, [-1, 1, 3]), (True, [0, 2, 4])],  # row at which each window begins
)
def test_borders(same, first):
    """A window of ones over distinct powers of two tells which rows it holds."""
    rows = 2.0 ** np.arange(6)
    x = jnp.asarray(rows.reshape(1, 6, 1, 1) * np.ones((1, 6, 6, 1)), jnp.float32)
    conv = convolution.conv(1, 3, "conv", stride=2, same=same)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[:, 1] = 1
    found = conv.apply({"params": {"kernel": kernel}}, x)[0, :, 1, 0]
    want = [sum(rows[i] for i in range(at, at + 3) if 0 <= i < 6) for at in first]
    np.testing.assert_array_equal(found, want)


def test_a_branch_goes_for_whole_examples_and_its_mean_stays():
    def branch(x, train, key):
        return Branch(train).apply({}, x, rngs={"dropout": key})

    x = jnp.ones((4000, 3, 2), jnp.float32)
    y = np.asarray(branch(x, True, jax.random.key(0)))
    assert set(np.unique(y.round(5))) == {0, np.float32(4 / 3).round(5)}
    assert (y == y[:, :1, :1]).all()
    assert abs(y.mean() - 1) < 5 * np.sqrt(1 / 3 / 4000)
    np.testing.assert_array_equal(branch(x, False, jax.random.key(0)), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "large", "small"),
    [
        ("imagenet_resnet", 8, 32),
        ("mobilenet_v1", 16, 32),
        ("mobilenet_v2", 16, 32),
        ("efficientnet_lite", 16, 32),
    ],
)
def test_a_small_stem_keeps_all_places(name, large, small):
    for stem, side in (("large", large), ("small", small)):
        fields = exported.MODELS[name] | {"stem": stem}
        module = models.build(name, classes=2, **fields)
        images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        begin = functools.partial(module.init_with_output, train=False)
        (_, features), _ = jax.eval_shape(begin, jax.random.key(0), images)
        assert features["stem"].shape[1:3] == (side, side)
