"""A bottleneck residual network for ImageNet: what analyses are timed on."""

from flax import linen as nn


def _conv(x, width, window=3, stride=1, **options):
    pads = [(window // 2, window // 2)] * 2
    return nn.Conv(
        width, (window,) * 2, stride, padding=pads, use_bias=False, **options
    )(x)


def _norm(x, train):
    return nn.BatchNorm(use_running_average=not train)(x)


class Bottlenecks(nn.Module):
    """ResNet-50 and the like (arXiv 1512.03385), with groups ResNeXt (1611.05431).

    Attributes:
      classes: number of logits.
      blocks: of each stage.
      widths: of the 3x3 convolutions of each stage, which have the stride.
      stem: channels before the first stage.
      expansion: what the blocks' outputs are wider by.
      groups: of the 3x3 convolutions.
      small: a stem of 3x3 without stride and pooling.
    """

    classes: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    stem: int
    expansion: int = 4
    groups: int = 1
    small: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        """Returns logits `[B, classes]` of images `[B, H, W, C]`."""
        x = _conv(x, self.stem) if self.small else _conv(x, self.stem, 7, 2)
        x = nn.relu(_norm(x, train))
        if not self.small:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (blocks, width) in enumerate(
            zip(self.blocks, self.widths, strict=True)
        ):
            for b in range(blocks):
                stride, out = 2 if stage and not b else 1, width * self.expansion
                y = nn.relu(_norm(_conv(x, width, 1), train))
                y = _conv(y, width, 3, stride, feature_group_count=self.groups)
                y = _norm(_conv(nn.relu(_norm(y, train)), out, 1), train)
                if not b:
                    x = _norm(_conv(x, out, 1, stride), train)
                x = nn.relu(x + y)
        return nn.Dense(self.classes)(x.mean((1, 2)))


def resnet50(classes: int = 1000) -> nn.Module:
    """Returns ResNet-50, with strides on the 3x3 convolutions: 25.6 M parameters."""
    return Bottlenecks(classes, (3, 4, 6, 3), (64, 128, 256, 512), 64)
