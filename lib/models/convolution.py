"""The layers that convolutional networks are made of: convolution and batch norm."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from lib.models.dropout import Dropout

# He's initialisation of convolutions (1502.01852): normal, with variance 2 / fan_in.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# What a network does to images before its blocks: "large" makes places fewer at once,
# as for ImageNet; "small" keeps them, for images of 32x32 and the like.
STEMS = ("large", "small")


def conv(
    width: int,
    size: int,
    name: str,
    *,
    stride: int = 1,
    groups: int = 1,
    same: bool = False,
) -> nn.Conv:
    """Returns a square convolution without bias, as batch norm's own follows.

    Args:
      width: channels of the result.
      size: side of the window.
      name: of the layer.
      stride: of both axes of places.
      groups: of channels that are convolved apart; as many as there are channels makes
        it depthwise.
      same: pads as TensorFlow does, which at stride 2 is less above and to the left;
        False pads `size // 2` on every side, as PyTorch's networks do.
    """
    border = (size // 2, size // 2)
    return nn.Conv(
        width,
        (size, size),
        (stride, stride),
        padding="SAME" if same else (border, border),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=HE,
        name=name,
    )


def norm(module: nn.Module, train: bool, epsilon: float = 1e-5) -> Callable[..., Any]:
    """Returns batch norms of a model by their `name`.

    Args:
      module: a model with the fields `momentum` and `axis_name`.
      train: whether the batch's statistics are used, and kept.
      epsilon: what is added to variances; by default PyTorch's.
    """
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=module.momentum,
        epsilon=epsilon,
        axis_name=module.axis_name,
    )


def without_some(x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Returns a residual branch that some examples go without (1603.09382).

    What is kept is divided by the share that is, as everywhere now, where the paper
    multiplies in evaluation.

    Args:
      x: the branch, `[B, ...]`.
      rate: share of the examples whose branch is 0, in [0, 1).
      train: whether any is.
    """
    axes = tuple(range(1, x.ndim))
    return Dropout(rate, broadcast_dims=axes, deterministic=not train)(x)


def rounded(width: float) -> int:
    """Returns a whole number of channels near `width`: a multiple of 8, at least 8.

    To the nearest, but never more than a tenth below `width`: what MobileNets and
    EfficientNets do where a multiplier scales them.
    """
    whole = max(8, int(width + 4) // 8 * 8)
    return whole + 8 if whole < 0.9 * width else whole
