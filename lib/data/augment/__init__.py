"""Random distortions of training images, on the device, inside the jitted step.

Two kinds. An augmentation of images is a function `(key, image) -> image` of one
float32 [H, W, C] image of raw pixels; `chain` composes them and `on_batch` lifts the
result to a batch, with a key of its own for each example. They come before
normalisation, so that what moves into view from outside the picture is a pixel of 0,
the background, and not the mean. A mixing (`mixing.Mixing`) joins the examples of a
prepared batch in pairs, and comes last.

A strength of zero is the identity, bit for bit. Strengths other than counts of pixels
and of operations may be traced values, so that a vmapped run sweeps them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from lib import errors
from lib.data.augment.base import FILLS, Augmentation, chain, on_batch
from lib.data.augment.colours import colour
from lib.data.augment.erasing import cutout, erase
from lib.data.augment.geometry import (
    crop,
    flip,
    magnify,
    rotate,
    scale,
    shift,
    turn,
)
from lib.data.augment.mixing import Batch, Mixing, cutmix, mixup
from lib.data.augment.randaugment import OPERATIONS, randaugment

# Name in a config -> factory, fed with the settings that stand under that name.
AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "shift": shift,
    "flip": flip,
    "rotate": rotate,
    "scale": scale,
    "crop": crop,
    "colour": colour,
    "cutout": cutout,
    "erase": erase,
    "randaugment": randaugment,
}

# The same for those that work on the prepared batch; these are given `classes`, too.
MIXINGS: dict[str, Callable[..., Mixing]] = {"mixup": mixup, "cutmix": cutmix}


class Augmentations(NamedTuple):
    """What a stage does to its training images; None for nothing.

    Attributes:
      images: to each image of raw pixels.
      mixing: to the prepared batch.
    """

    images: Augmentation | None
    mixing: Mixing | None


def build(
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    kind: str,
    classes: int,
) -> Augmentations:
    """Returns the named augmentations, each with `settings[name]`.

    Both kinds are chained left to right, each by itself: mixings come after all others,
    wherever they are named.

    Args:
      names: keys of `AUGMENTATIONS` and `MIXINGS`.
      settings: name -> its factory's options.
      kind: of the data; there are augmentations of images only.
      classes: of the data set; labels lie in [0, classes).

    Raises:
      UserError: an unknown name, data of another kind, or a setting out of its range.
    """
    images, mixings = [], []
    for name in names:
        factory = errors.lookup({**AUGMENTATIONS, **MIXINGS}, name, "augmentation")
        if kind != "image":
            raise errors.UserError(
                f"augmentation {name!r} is for data of kind 'image', not {kind!r}"
            )
        if name in MIXINGS:
            mixings.append(factory(**settings[name], classes=classes))
        else:
            images.append(factory(**settings[name]))
    return Augmentations(
        chain(*images) if images else None, in_turn(*mixings) if mixings else None
    )


def in_turn(*mixings: Mixing) -> Mixing:
    """Returns the mixing that applies each in turn, with a key of its own."""

    def mix(key: jax.Array, batch: Batch, first: jax.Array | int) -> Batch:
        for i, step in enumerate(mixings):
            batch = step(jax.random.fold_in(key, i), batch, first)
        return batch

    return mix


__all__ = [
    "AUGMENTATIONS",
    "FILLS",
    "MIXINGS",
    "OPERATIONS",
    "Augmentation",
    "Augmentations",
    "Batch",
    "Mixing",
    "build",
    "chain",
    "colour",
    "crop",
    "cutmix",
    "cutout",
    "erase",
    "flip",
    "in_turn",
    "magnify",
    "mixup",
    "on_batch",
    "randaugment",
    "rotate",
    "scale",
    "shift",
    "turn",
]
