"""The inverted residual block of Sandler et al. 2018 (1801.04381), section 3.3."""

from typing import Any

import jax
from flax import linen as nn

from lib.models import convolution


class Inverted(nn.Module):
    """Widened by 1x1, filtered channel by channel, narrowed by 1x1 without relu6.

    Layers: `conv_expand`, `norm_expand` (both only where `expansion` is above 1),
    `conv_depth`, `norm_depth`, `conv_project`, `norm_project`; relu6 after the first
    two norms. The input is added where the result has its shape.

    Attributes:
      width: channels of the result.
      expansion: channels that are filtered for each of the input.
      size: side of the filters.
      stride: of the filters.
      norm: batch norms by their name.
      same: pads as TensorFlow does, see `convolution.conv`.
      drop_path: share of the examples that go without the branch in training.
    """

    width: int
    expansion: int
    size: int
    stride: int
    norm: Any
    same: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), width]`."""
        y, wide = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = convolution.conv(wide, 1, "conv_expand")(y)
            y = nn.relu6(self.norm(name="norm_expand")(y))
        alone = {"stride": self.stride, "groups": wide, "same": self.same}
        y = convolution.conv(wide, self.size, "conv_depth", **alone)(y)
        y = nn.relu6(self.norm(name="norm_depth")(y))
        y = convolution.conv(self.width, 1, "conv_project")(y)
        y = self.norm(name="norm_project")(y)
        if self.stride > 1 or x.shape[-1] != self.width:
            return y
        return x + convolution.without_some(y, self.drop_path, train)
