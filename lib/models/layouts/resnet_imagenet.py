"""PyTorch's ResNets for ImageNet, in torchvision's and timm's names."""

from flax import linen as nn

from lib.models.layouts import base


def place(path: str, module: nn.Module) -> str:
    """Returns their name: `params/block_0_2/conv_1/kernel` is `layer1.2.conv2.weight`.

    Args:
      path: of a weight of `lib.models.imagenet_resnet.ImageNetResNet`.
      module: of no matter; the names tell all.
    """
    del module
    _, *scopes, layer, _ = path.split("/")
    kind, _, number = layer.partition("_")
    leaf = base.weight_or_bias(path)
    if kind == "logits":
        return f"fc.{leaf}"
    prefix = ""
    for scope in scopes:
        _, stage, block = scope.split("_")
        prefix = f"layer{int(stage) + 1}.{block}."
    if number == "skip":
        return f"{prefix}downsample.{('conv', 'norm').index(kind)}.{leaf}"
    named = {"conv": "conv", "norm": "bn"}[kind]
    return f"{prefix}{named}{int(number or 0) + 1}.{leaf}"


LAYOUT = base.Layout("ResNet of torchvision and timm", place)
