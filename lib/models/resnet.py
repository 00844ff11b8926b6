"""The residual network for small images: He et al. 2015 (1512.03385), section 4.2."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors
from lib.models import checks, convolution
from lib.models.dropout import Dropout

_STAGES = 3


def shortcut(x: jax.Array, stride: int, width: int) -> jax.Array:
    """Returns every `stride`-th place of `x`, with channels of zeros up to `width`.

    Option A of the paper, without parameters. Half of the new channels come before the
    old ones and half after, as in the PyTorch code whose weights are in circulation.

    Args:
      x: `[B, H, W, C]`, C at most `width`.
      stride: of both axes of places.
      width: channels of the result, `[B, ceil(H / stride), ceil(W / stride), width]`.
    """
    new = width - x.shape[-1]
    if stride > 1:
        x = jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
    if new:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    return x


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch norm, around which the input goes too.

    Layers: `conv_0`, `norm_0`, `conv_1`, `norm_1`; relu after `norm_0` and after the
    sum of `norm_1` and the shortcut.

    Attributes:
      width: channels of the result.
      stride: of `conv_0` and the shortcut.
      norm: batch norms by their name.
    """

    width: int
    stride: int
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), width]`."""
        y = convolution.conv(self.width, 3, "conv_0", stride=self.stride)(x)
        y = nn.relu(self.norm(name="norm_0")(y))
        y = convolution.conv(self.width, 3, "conv_1")(y)
        y = self.norm(name="norm_1")(y)
        return nn.relu(y + shortcut(x, self.stride, self.width))


class ResNet(nn.Module):
    """A convolution, three stages of residual blocks, mean over the places, logits.

    The paper's networks are `depth` 20, 32, 44, 56 and 110 (6 n + 2, of n blocks a
    stage) with widths 16, 32, 64; on 32x32x3 images they have 0.27, 0.46, 0.66, 0.85
    and 1.7 million parameters. The second and third stage begin with stride 2.

    Batch norm as in `CNN`, with PyTorch's epsilon (1e-5) and momentum (its 0.1 is 0.9
    here). Running variances are of the biased variance, where PyTorch's are unbiased.

    Layers: `conv`, `norm`, `block_s_b` for stage s and its block b (see `Block`),
    `logits`.
    Features: `stem` and `block_s_b` `[B, h, w, widths[s]]`, after relu, and `pooled`
    `[B, widths[2]]`, before dropout.

    Attributes:
      classes: number of logits.
      depth: layers with weights: 6 n + 2, n at least 1.
      widths: channels of each of the three stages, none fewer than of the one before.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    depth: int = 20
    widths: tuple[int, int, int] = (16, 32, 64)
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "depth")
        checks.widths(self, least=_STAGES, most=_STAGES)
        checks.fractions(self, "dropout", "momentum")
        if self.depth < 8 or self.depth % 6 != 2:
            raise errors.UserError(
                "ResNet.depth: expected 6 n + 2 for n of at least 1 (20, 32, 44, 56, "
                f"110), got {self.depth}"
            )
        if sorted(self.widths) != list(self.widths):
            raise errors.UserError(
                "ResNet.widths: expected none smaller than the one before, as "
                f"shortcuts only add channels, got {self.widths}"
            )
        super().__post_init__()

    @property
    def blocks(self) -> int:
        """How many residual blocks a stage has."""
        return (self.depth - 2) // (2 * _STAGES)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=1)
        norm = convolution.norm(self, train)
        features = {}
        x = convolution.conv(self.widths[0], 3, "conv")(images)
        x = features["stem"] = nn.relu(norm(name="norm")(x))
        for s, width in enumerate(self.widths):
            for b in range(self.blocks):
                stride = 2 if s and not b else 1
                name = f"block_{s}_{b}"
                x = features[name] = Block(width, stride, norm, name=name)(x)
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features
