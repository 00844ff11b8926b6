"""Weights under our own names: Flax files of any Linen module, ours or a user's."""

from flax import linen as nn

from lib.models.layouts import base


def place(path: str, module: nn.Module) -> base.Part:
    """Returns the path itself, with the array as it is."""
    del module
    return base.Part(path.removeprefix("params/"), base.same)


LAYOUT = base.Layout("its own Linen module", place, prefixes=("params/",))
