"""LeNet-5 as Caffe has it, the network that pruning papers mean by the name."""

import jax
from flax import linen as nn

from lib.models import checks, pooling
from lib.models.dropout import Dropout

# Caffe's "xavier" filler: uniform in +-sqrt(3 / fan_in).
_XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class LeNet5(nn.Module):
    """Two convolutions and two dense layers, after `lenet_train_test.prototxt`.

    As in Caffe, no activation follows the convolutions; the only relu follows `ip1`.
    28x28x1 images and 10 classes give 431,080 parameters. Pooling drops an odd last
    row or column, where Caffe would pool it alone; at 28x28 there is none.

    Layers: `conv1` (5x5, valid), `conv2` (5x5, valid), `ip1`, `ip2` (the logits).
    Features: `conv1`, `pool1`, `conv2`, `pool2` `[B, h, w, c]`, and `ip1`
    `[B, widths[2]]`, after relu and before dropout.

    Attributes:
      classes: number of logits.
      widths: channels of `conv1` and of `conv2`, units of `ip1`.
      dropout: fraction of `ip1`'s units dropped in training, in [0, 1); Caffe has 0.
    """

    classes: int
    widths: tuple[int, int, int] = (20, 50, 500)
    dropout: float = 0.0

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.widths(self, least=3, most=3)
        checks.fractions(self, "dropout")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        # 16 -> conv 12 -> pool 6 -> conv 2 -> pool 1
        checks.images(self, images, least=16)
        features = {}
        x = images
        for i, width in enumerate(self.widths[:2], start=1):
            conv = nn.Conv(
                width, (5, 5), padding="VALID", kernel_init=_XAVIER, name=f"conv{i}"
            )
            x = features[f"conv{i}"] = conv(x)
            x = features[f"pool{i}"] = pooling.max_pool(x)
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(self.widths[2], kernel_init=_XAVIER, name="ip1")(x))
        features["ip1"] = x
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, kernel_init=_XAVIER, name="ip2")(x), features
