"""MobileNetV2: Sandler et al. 2018 (1801.04381), table 2."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks, convolution
from lib.models.dropout import Dropout
from lib.models.inverted import Inverted

_STEM, _HEAD = 32, 1280
# Expansion, channels, blocks and first stride of each stage, at multipliers of 1.
_STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class MobileNetV2(nn.Module):
    """A 3x3 convolution, inverted residuals, a 1x1 one, mean over places, logits.

    3.5 million parameters on 1000 classes. Batch norm as in `ResNet`, with PyTorch's
    epsilon and momentum.

    Layers: `conv`, `norm`, `block_0`, ... (see `Inverted`), `conv_head`, `norm_head`,
    `logits`.
    Features: `stem`, `block_i` and `head` `[B, h, w, C]`, and `pooled` `[B, C]`, before
    dropout.

    Attributes:
      classes: number of logits.
      width: multiplier of all channels, which become multiples of 8; below 1 it leaves
        those of the head.
      depth: multiplier of the blocks of each stage, rounded up.
      stem: "large" is a convolution at stride 2, "small" one without.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    width: float = 1.0
    depth: float = 1.0
    stem: str = "large"
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.multipliers(self, "width", "depth")
        checks.choice(self, "stem", convolution.STEMS)
        checks.fractions(self, "dropout", "momentum")
        super().__post_init__()

    @property
    def stages(self) -> tuple[int, ...]:
        """How many blocks each stage has; those of the first do not widen."""
        return tuple(math.ceil(blocks * self.depth) for _, _, blocks, _ in _STAGES)

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
        for i, (expansion, width, stride) in enumerate(self._blocks()):
            block = Inverted(width, expansion, 3, stride, norm, name=f"block_{i}")
            x = features[f"block_{i}"] = block(x, train=train)
        width = convolution.rounded(_HEAD * max(1.0, self.width))
        x = convolution.conv(width, 1, "conv_head")(x)
        x = features["head"] = nn.relu6(norm(name="norm_head")(x))
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features

    def _blocks(self) -> list[tuple[int, int, int]]:
        """Returns (expansion, channels, stride) of each block."""
        return [
            (expansion, convolution.rounded(width * self.width), 1 if b else stride)
            for (expansion, width, _, stride), blocks in zip(
                _STAGES, self.stages, strict=True
            )
            for b in range(blocks)
        ]
