"""PyTorch's ResNets for CIFAR: akamaster's, named after torchvision's."""

from flax import linen as nn

from lib.models.layouts import base


def place(path: str, module: nn.Module) -> str:
    """Returns their name: `params/block_0_2/conv_1/kernel` is `layer1.2.conv2.weight`.

    Args:
      path: of a weight of `lib.models.resnet.ResNet`.
      module: of no matter; the names tell all.
    """
    del module
    _, *scopes, layer, _ = path.split("/")
    kind, _, number = layer.partition("_")
    leaf = base.weight_or_bias(path)
    if kind == "logits":
        return f"linear.{leaf}"
    named = {"conv": "conv", "norm": "bn"}[kind] + str(int(number or 0) + 1)
    prefix = ""
    for scope in scopes:
        _, stage, block = scope.split("_")
        prefix = f"layer{int(stage) + 1}.{block}."
    return f"{prefix}{named}.{leaf}"


LAYOUT = base.Layout("CIFAR ResNet of PyTorch", place)
