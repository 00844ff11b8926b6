"""The residual networks for ImageNet: He et al. 2015 (1512.03385), table 1."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib import errors
from lib.models import checks, convolution
from lib.models.dropout import Dropout

# Layers with weights -> (whether blocks are bottlenecks, blocks of each stage). The
# paper's are 18, 34, 50, 101 and 152; the others are their smaller kin.
DEPTHS: dict[int, tuple[bool, tuple[int, int, int, int]]] = {
    10: (False, (1, 1, 1, 1)),
    14: (True, (1, 1, 1, 1)),
    18: (False, (2, 2, 2, 2)),
    26: (True, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class Block(nn.Module):
    """A residual block, whose shortcut projects where it must (option B).

    Layers: `conv_0`, `norm_0`, `conv_1`, `norm_1`, of bottlenecks also `conv_2`,
    `norm_2`, and of a shortcut that projects `conv_skip`, `norm_skip`; relu after each
    norm but the last and that of the shortcut, and after their sum. A stride is on the
    first 3x3 convolution, as in torchvision, where the paper's is on `conv_0`.

    Attributes:
      width: channels of the 3x3 convolutions.
      expansion: channels of the result for each of `width`.
      stride: of the first 3x3 convolution and the shortcut.
      groups: of channels of the bottleneck's 3x3 convolution.
      bottleneck: 1x1, 3x3, 1x1; False: two of 3x3.
      norm: batch norms by their name.
    """

    width: int
    expansion: int
    stride: int
    groups: int
    bottleneck: bool
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), width * expansion]`."""
        wide = self.width * self.expansion
        kinds = [(self.width, 3, self.stride, 1), (wide, 3, 1, 1)]
        if self.bottleneck:
            middle = (self.width, 3, self.stride, self.groups)
            kinds = [(self.width, 1, 1, 1), middle, (wide, 1, 1, 1)]
        y = x
        for i, (width, size, stride, groups) in enumerate(kinds):
            y = nn.relu(y) if i else y
            named = {"name": f"conv_{i}", "stride": stride, "groups": groups}
            y = convolution.conv(width, size, **named)(y)
            y = self.norm(name=f"norm_{i}")(y)
        if self.stride > 1 or x.shape[-1] != wide:
            x = convolution.conv(wide, 1, "conv_skip", stride=self.stride)(x)
            x = self.norm(name="norm_skip")(x)
        return nn.relu(x + y)


class ImageNetResNet(nn.Module):
    """A stem, four stages of residual blocks, mean over the places, logits.

    ResNet-18, -34 and -50 on 1000 classes have 11.7, 21.8 and 25.6 million parameters.
    ResNeXt-50 32x4d (1611.05431) is depth 50 with widths (128, 256, 512, 1024),
    expansion 2 and 32 groups; Wide ResNet-50-2 is the same without groups.

    Batch norm as in `ResNet`, with PyTorch's epsilon and momentum.

    Layers: `conv`, `norm`, `block_s_b` for stage s and its block b (see `Block`),
    `logits`.
    Features: `stem` and `block_s_b` `[B, h, w, C]`, after relu (and, of a large stem,
    pooling), and `pooled` `[B, C]`, before dropout.

    Attributes:
      classes: number of logits.
      depth: layers with weights; a key of `DEPTHS`.
      widths: channels of the 3x3 convolutions of each of the four stages.
      expansion: channels of a bottleneck's result for each of its width.
      groups: of channels of a bottleneck's 3x3 convolution; divides the widths.
      stem: "large" is 7x7 at stride 2, then 3x3 max pooling at stride 2; "small" is
        3x3, without stride and pooling.
      stem_width: channels of the stem.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    depth: int = 50
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    expansion: int = 4
    groups: int = 1
    stem: str = "large"
    stem_width: int = 64
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "expansion", "groups", "stem_width")
        checks.choice(self, "depth", DEPTHS)
        checks.choice(self, "stem", convolution.STEMS)
        checks.widths(self, least=4, most=4)
        checks.fractions(self, "dropout", "momentum")
        if self.groups > 1 and not DEPTHS[self.depth][0]:
            raise errors.UserError(
                f"ImageNetResNet.groups: expected 1 at depth {self.depth}, which has "
                f"no bottlenecks, got {self.groups}"
            )
        if any(width % self.groups for width in self.widths):
            raise errors.UserError(
                "ImageNetResNet.widths: expected multiples of the "
                f"{self.groups} groups, got {self.widths}"
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
        size, stride = (7, 2) if self.stem == "large" else (3, 1)
        x = convolution.conv(self.stem_width, size, "conv", stride=stride)(images)
        x = nn.relu(norm(name="norm")(x))
        if self.stem == "large":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features["stem"] = x
        bottleneck, stages = DEPTHS[self.depth]
        expansion = self.expansion if bottleneck else 1
        for s, (width, blocks) in enumerate(zip(self.widths, stages, strict=True)):
            for b in range(blocks):
                stride = 2 if s and not b else 1
                name = f"block_{s}_{b}"
                kind = (width, expansion, stride, self.groups, bottleneck, norm)
                x = features[name] = Block(*kind, name=name)(x)
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features
