"""EfficientNet-Lite: EfficientNet (1905.11946) without what integers are slow at.

As in the `tensorflow/tpu` repository: relu6 for swish, no squeeze and excitation, and
a stem and a head that no multiplier scales.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks, convolution
from lib.models.dropout import Dropout
from lib.models.inverted import Inverted

_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3  # of batch norm


class _Stage(NamedTuple):
    expansion: int
    width: int
    blocks: int
    size: int
    stride: int


# At multipliers of 1; the first and the last keep their number of blocks.
_STAGES = (
    _Stage(1, 16, 1, 3, 1),
    _Stage(6, 24, 2, 3, 2),
    _Stage(6, 40, 2, 5, 2),
    _Stage(6, 80, 3, 3, 2),
    _Stage(6, 112, 3, 5, 1),
    _Stage(6, 192, 4, 5, 2),
    _Stage(6, 320, 1, 3, 1),
)


class EfficientNetLite(nn.Module):
    """A 3x3 convolution, inverted residuals, a 1x1 one, mean over places, logits.

    Lite0 has 4.7 million parameters on 1000 classes; Lite1 to Lite4 are `width` and
    `depth` (1.0, 1.1), (1.1, 1.2), (1.2, 1.4) and (1.4, 1.8). Convolutions pad as
    TensorFlow does, as in the published weights; batch norm's epsilon is 1e-3.

    Layers: `conv`, `norm`, `block_0`, ... (see `Inverted`), `conv_head`, `norm_head`,
    `logits`.
    Features: `stem`, `block_i` and `head` `[B, h, w, C]`, and `pooled` `[B, C]`, before
    dropout.

    Attributes:
      classes: number of logits.
      width: multiplier of the blocks' channels, which become multiples of 8.
      depth: multiplier of the blocks of each stage, rounded up.
      stem: "large" is a convolution at stride 2, "small" one without.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      drop_path: share of the examples that go without a block's branch in training, in
        [0, 1): of the last of n blocks (n - 1) / n of it, of the first nothing, evenly
        between. The published is 0.2.
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    width: float = 1.0
    depth: float = 1.0
    stem: str = "large"
    dropout: float = 0.0
    drop_path: float = 0.0
    momentum: float = 0.99
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.multipliers(self, "width", "depth")
        checks.choice(self, "stem", convolution.STEMS)
        checks.fractions(self, "dropout", "drop_path", "momentum")
        super().__post_init__()

    @property
    def stages(self) -> tuple[int, ...]:
        """How many blocks each stage has; those of the first do not widen."""
        middle = (math.ceil(stage.blocks * self.depth) for stage in _STAGES[1:-1])
        return (_STAGES[0].blocks, *middle, _STAGES[-1].blocks)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=1)
        norm = convolution.norm(self, train, _EPSILON)
        features = {}
        stride = 2 if self.stem == "large" else 1
        x = convolution.conv(_STEM, 3, "conv", stride=stride, same=True)(images)
        x = features["stem"] = nn.relu6(norm(name="norm")(x))
        blocks = self._blocks()
        for i, one in enumerate(blocks):
            block = Inverted(
                *(one.width, one.expansion, one.size, one.stride, norm),
                same=True,
                drop_path=self.drop_path * i / len(blocks),
                name=f"block_{i}",
            )
            x = features[f"block_{i}"] = block(x, train=train)
        x = convolution.conv(_HEAD, 1, "conv_head")(x)
        x = features["head"] = nn.relu6(norm(name="norm_head")(x))
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features

    def _blocks(self) -> list[_Stage]:
        """Returns each block as a stage of one."""
        return [
            stage._replace(
                width=convolution.rounded(stage.width * self.width),
                blocks=1,
                stride=1 if b else stage.stride,
            )
            for stage, blocks in zip(_STAGES, self.stages, strict=True)
            for b in range(blocks)
        ]
