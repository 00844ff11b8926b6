"""Where the weights of our models stand in other libraries' files, one file a family.

To add one: a file with a `LAYOUT` here, and its line below.
"""

from lib.models.layouts import own, resnet_cifar
from lib.models.layouts.base import Layout, Part

__all__ = ["LAYOUTS", "OWN", "Layout", "Part"]

# Class of a model -> its layouts; of several, the one that knows most names of a file.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "ResNet": (resnet_cifar.LAYOUT,),
}

# Files whose names are the model's own paths fit every Linen module.
OWN = own.LAYOUT
