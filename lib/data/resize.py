"""Images of any size and number of channels to one shape, on the host, one at a time.

By Pillow, which looks at every pixel that a smaller image stands for (antialiased);
most libraries' and most frameworks' own "bilinear" skips pixels.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from lib import errors

# How a pixel is made of its neighbours.
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def _stretch(image: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    """Changes the proportions, loses nothing."""
    return _scaled(image, height, width, by)


def _crop(image: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    """Scales until it covers the rectangle, and keeps the middle."""
    old_height, old_width = image.shape[:2]
    scale = max(height / old_height, width / old_width)
    new = [
        max(h, round(s * scale)) for h, s in ((height, old_height), (width, old_width))
    ]
    image = _scaled(image, *new, by)
    top, left = (new[0] - height) // 2, (new[1] - width) // 2
    return image[top : top + height, left : left + width]


def _pad(image: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    """Scales until it fits into the rectangle, in the middle of pixels of 0."""
    old_height, old_width, channels = image.shape
    scale = min(height / old_height, width / old_width)
    new = [
        min(h, max(1, round(s * scale)))
        for h, s in ((height, old_height), (width, old_width))
    ]
    out = np.zeros((height, width, channels), np.uint8)
    top, left = (height - new[0]) // 2, (width - new[1]) // 2
    out[top : top + new[0], left : left + new[1]] = _scaled(image, *new, by)
    return out


# What becomes of an image of other proportions.
WAYS: dict[str, Callable[..., np.ndarray]] = {
    "stretch": _stretch,
    "crop": _crop,
    "pad": _pad,
}


def fit(
    image: np.ndarray, height: int, width: int, how: str, by: str = "bilinear"
) -> np.ndarray:
    """Returns an image of the given height and width; one that has them, as it is.

    Args:
      image: uint8 `[H, W, C]`.
      height: of the result, at least 1.
      width: of the result, at least 1.
      how: a key of `WAYS`: "stretch" changes the proportions, "crop" loses what is
        too long at both ends, "pad" adds pixels of 0 at both ends.
      by: a key of `FILTERS`.

    Raises:
      UserError: an unknown way or filter.
    """
    way = errors.lookup(WAYS, how, "way to resize")
    errors.lookup(FILTERS, by, "filter to resize by")
    if image.shape[:2] == (height, width):
        return image
    return way(image, height, width, by)


def recolour(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 `[H, W, channels]`: grey is repeated, RGB becomes its luma.

    Raises:
      UserError: other than from 1 or 3 channels to 1 or 3.
    """
    have = image.shape[-1]
    if have == channels:
        return image
    if {have, channels} != {1, 3}:
        raise errors.UserError(
            f"an image of {have} channels cannot become one of {channels}; "
            "only 1 (grey) and 3 (RGB) become one another"
        )
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def to_shape(
    image: np.ndarray, shape: tuple[int, int, int], how: str, by: str = "bilinear"
) -> np.ndarray:
    """Returns the image as uint8 of `shape`, (H, W, C); see `fit` and `recolour`."""
    height, width, channels = shape
    return fit(recolour(image, channels), height, width, how, by)


def check(shape: tuple[int, ...], how: str, by: str) -> None:
    """Raises a `UserError` for a shape, way or filter that is none.

    Args:
      shape: (H, W, C), or () for images that are kept as they are.
      how: a key of `WAYS`.
      by: a key of `FILTERS`.
    """
    errors.lookup(WAYS, how, "way to resize")
    errors.lookup(FILTERS, by, "filter to resize by")
    whole = all(isinstance(n, int) and n > 0 for n in shape)
    if shape and not (len(shape) == 3 and whole and shape[-1] in (1, 3)):
        raise errors.UserError(
            "data.image_shape is (height, width, channels) with 1 or 3 channels, "
            f"or (); got {shape}"
        )


def _scaled(image: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    scaled = np.asarray(picture.resize((width, height), FILTERS[by]))
    return scaled[..., None] if grey else scaled
