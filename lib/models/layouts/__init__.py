"""Where the weights of our models stand in other libraries' files, one file a family.

To add one: a file with a `LAYOUT` here, and its line below.
"""

from lib.models.layouts import (
    albert,
    bert,
    distilbert,
    efficientnet_lite,
    gpt2,
    mobilenet,
    own,
    resnet_cifar,
    resnet_imagenet,
    vit,
    wide_resnet,
)
from lib.models.layouts.base import Layout, Part

__all__ = ["LAYOUTS", "OWN", "Layout", "Part"]

# Class of a model -> its layouts; of several, the one that knows most names of a file.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "EfficientNetLite": (efficientnet_lite.LAYOUT, mobilenet.TIMM_INVERTED),
    "ImageNetResNet": (resnet_imagenet.LAYOUT,),
    "MobileNetV1": (mobilenet.TIMM_V1,),
    "MobileNetV2": (mobilenet.TORCHVISION_V2, mobilenet.TIMM_INVERTED),
    "Decoder": (gpt2.LAYOUT,),
    "Encoder": (bert.LAYOUT, distilbert.LAYOUT, albert.LAYOUT),
    "ResNet": (resnet_cifar.LAYOUT,),
    "ViT": (vit.LAYOUT,),
    "WideResNet": (wide_resnet.LAYOUT,),
}

# Files whose names are the model's own paths fit every Linen module.
OWN = own.LAYOUT
