"""A sheet of small pictures in labelled rows, to look at many at once."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lib.report import style

TILE = 0.62  # inches


@style.styled()
def contact_sheet(rows: Mapping[str, np.ndarray], white: float) -> Figure:
    """Draws one row of pictures for each name, each pixel as a square.

    Args:
      rows: name -> `[N, H, W, C]`, C 1 or 3, pixels from 0 to `white`; the same N.
      white: the brightest pixel.
    """
    columns = max(len(images) for images in rows.values())
    drawn = style.figure(TILE * (columns + 2.4), TILE * len(rows))
    grid = drawn.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            shown = np.clip(np.asarray(image, np.float32) / white, 0, 1)
            if shown.shape[-1] == 1:
                shown = np.repeat(shown, 3, axis=-1)
            axes.imshow(shown, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_frame_on(False)
        line[0].set_ylabel(
            name.replace("_", " "),
            rotation=0,
            ha="right",
            va="center",
            color=style.INK,
            labelpad=6,
        )
    return drawn
