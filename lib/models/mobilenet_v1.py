"""MobileNet: Howard et al. 2017 (1704.04861), table 1."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks, convolution
from lib.models.dropout import Dropout

_STEM = 32
# Channels, blocks and first stride of each stage, at a multiplier of 1.
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class Block(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 one, each with batch norm and relu6.

    Layers: `conv_depth`, `norm_depth`, `conv_point`, `norm_point`.

    Attributes:
      width: channels of the result.
      stride: of `conv_depth`.
      norm: batch norms by their name.
    """

    width: int
    stride: int
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), width]`."""
        alone = {"stride": self.stride, "groups": x.shape[-1]}
        x = convolution.conv(x.shape[-1], 3, "conv_depth", **alone)(x)
        x = nn.relu6(self.norm(name="norm_depth")(x))
        x = convolution.conv(self.width, 1, "conv_point")(x)
        return nn.relu6(self.norm(name="norm_point")(x))


class MobileNetV1(nn.Module):
    """A 3x3 convolution, 13 depthwise separable blocks, mean over the places, logits.

    4.2 million parameters on 1000 classes. The activation is relu6, as in the authors'
    code; batch norm as in `ResNet`, with PyTorch's epsilon and momentum, as in timm's
    weights (the authors' epsilon is 1e-3).

    Layers: `conv`, `norm`, `block_0` to `block_12` (see `Block`), `logits`.
    Features: `stem` and `block_i` `[B, h, w, C]`, after relu6, and `pooled` `[B, C]`,
    before dropout.

    Attributes:
      classes: number of logits.
      width: multiplier of all channels, which become multiples of 8.
      stem: "large" is a convolution at stride 2, "small" one without.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    width: float = 1.0
    stem: str = "large"
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.multipliers(self, "width")
        checks.choice(self, "stem", convolution.STEMS)
        checks.fractions(self, "dropout", "momentum")
        super().__post_init__()

    @property
    def stages(self) -> tuple[int, ...]:
        """How many blocks each stage has."""
        return tuple(blocks for _, blocks, _ in _STAGES)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=1)
        norm = convolution.norm(self, train)
        features = {}
        stride = 2 if self.stem == "large" else 1
        width = convolution.rounded(_STEM * self.width)
        x = convolution.conv(width, 3, "conv", stride=stride)(images)
        x = features["stem"] = nn.relu6(norm(name="norm")(x))
        blocks = [
            (convolution.rounded(width * self.width), 1 if b else stride)
            for width, blocks, stride in _STAGES
            for b in range(blocks)
        ]
        for i, (width, stride) in enumerate(blocks):
            x = features[f"block_{i}"] = Block(width, stride, norm, name=f"block_{i}")(
                x
            )
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features
