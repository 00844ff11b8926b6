"""Wide residual networks for small images: Zagoruyko & Komodakis 2016 (1605.07146)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors
from lib.models import checks, convolution
from lib.models.dropout import Dropout

_WIDTHS = (16, 32, 64)  # of the stages, at a factor of 1; the stem has the first


class Block(nn.Module):
    """Norm and relu before each of two 3x3 convolutions, dropout between them.

    Layers: `norm_0`, `conv_0`, `norm_1`, `conv_1`, and `conv_skip` of a shortcut that
    projects, which then reads what comes after the first relu.

    Attributes:
      width: channels of the result.
      stride: of `conv_0` and the shortcut.
      dropout: fraction dropped before `conv_1`.
      norm: batch norms by their name.
    """

    width: int
    stride: int
    dropout: float
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), width]`."""
        y = nn.relu(self.norm(name="norm_0")(x))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = convolution.conv(self.width, 1, "conv_skip", stride=self.stride)(y)
        y = convolution.conv(self.width, 3, "conv_0", stride=self.stride)(y)
        y = nn.relu(self.norm(name="norm_1")(y))
        y = Dropout(self.dropout, deterministic=not train)(y)
        return x + convolution.conv(self.width, 3, "conv_1")(y)


class WideResNet(nn.Module):
    """A convolution, three stages of wide blocks, norm, mean over the places, logits.

    WRN-d-k of the paper is `depth` d and `factor` k: on 10 classes WRN-16-4 has 2.7,
    WRN-40-4 8.9 and WRN-28-10 36.5 million parameters. The second and third stage begin
    with stride 2. Batch norm as in `ResNet`.

    Layers: `conv`, `block_s_b` for stage s and its block b (see `Block`), `norm`,
    `logits`.
    Features: `stem` and `block_s_b` `[B, h, w, C]`, before norm and relu, and `pooled`
    `[B, 64 factor]`, after both.

    Attributes:
      classes: number of logits.
      depth: 6 n + 4, of n blocks a stage, n at least 1.
      factor: how many times as wide the stages are as 16, 32 and 64 channels.
      dropout: fraction dropped between the convolutions of a block, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    depth: int = 16
    factor: int = 4
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "depth", "factor")
        checks.fractions(self, "dropout", "momentum")
        if self.depth < 10 or self.depth % 6 != 4:
            raise errors.UserError(
                "WideResNet.depth: expected 6 n + 4 for n of at least 1 (10, 16, 22, "
                f"28, 40), got {self.depth}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=1)
        norm = convolution.norm(self, train)
        features = {}
        x = features["stem"] = convolution.conv(_WIDTHS[0], 3, "conv")(images)
        for s, width in enumerate(_WIDTHS):
            for b in range((self.depth - 4) // 6):
                stride = 2 if s and not b else 1
                name = f"block_{s}_{b}"
                block = Block(
                    width * self.factor, stride, self.dropout, norm, name=name
                )
                x = features[name] = block(x, train=train)
        x = nn.relu(norm(name="norm")(x))
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="logits")(x), features
