"""What became of the weights of each layer, as matplotlib figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.report import formats, style

COLUMNS = 4  # of small multiples
BARS = 40
HISTOGRAMS = 12


def _weights(layers: Sequence[Mapping[str, Any]], most: int) -> list:
    """Returns the matrices and kernels, at most the `most` largest, in order."""
    kernels = [layer for layer in layers if len(layer["shape"]) >= 2]
    largest = sorted(kernels, key=lambda layer: -layer["params"])[:most]
    return [layer for layer in kernels if any(layer is kept for kept in largest)]


def left_out(layers: Sequence[Mapping[str, Any]], most: int) -> int:
    """Returns how many matrices and kernels a plot of the `most` largest leaves out."""
    return len(_weights(layers, len(layers))) - len(_weights(layers, most))


@style.styled()
def sparsity(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the part of each matrix or kernel that is exactly zero, as bars.

    Args:
      layers: as `layers.describe` returns them; the `BARS` largest are drawn.
    """
    shown = _weights(layers, BARS)
    drawn = style.figure(7.5, 0.5 + 0.3 * len(shown))
    axes = drawn.add_subplot()
    names = formats.short_paths([layer["path"] for layer in shown], 44)
    zeros = [1 - layer["nonzero"] / max(layer["params"], 1) for layer in shown]
    places = np.arange(len(shown))
    axes.barh(places, [100] * len(shown), height=0.56, color=style.FAINT, alpha=0.35)
    axes.barh(places, [100 * z for z in zeros], height=0.56, color=style.ACCENT)
    for place, zero, layer in zip(places, zeros, shown, strict=True):
        kept = f"{formats.exact(layer['nonzero'])} of {formats.exact(layer['params'])}"
        told = [(6, f"{100 * zero:.1f} %", style.INK, "bold")]
        told.append((52, kept, style.MUTED, "normal"))
        for offset, words, colour, weight in told:
            axes.annotate(
                words,
                (100, place),
                (offset, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                weight=weight,
            )
    axes.set_yticks(places, names, color=style.INK)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


@style.styled()
def histograms(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the weights of each matrix or kernel before and after, without the zeros.

    Both are scaled to their own highest bin. The dense ones are a filled outline, the
    packed ones bars, since a grid of few bits takes few values.

    Args:
      layers: as `layers.describe` returns them; the `HISTOGRAMS` largest are drawn.
    """
    shown = _weights(layers, HISTOGRAMS)
    columns = min(COLUMNS, max(len(shown), 1))
    lines = math.ceil(len(shown) / columns)
    drawn = style.figure(max(3.6, 2.35 * columns), 1.75 * lines)
    drawn.get_layout_engine().set(hspace=0.08)
    grid = drawn.subplots(lines, columns, squeeze=False).ravel()
    names = formats.short_paths([layer["path"] for layer in shown], 26)
    for axes, layer, name in zip(grid, shown, names, strict=False):
        counts = layer["histogram"]
        edges = np.asarray(counts["edges"])
        if counts["dense"] is not None:
            dense = np.asarray(counts["dense"], float)
            axes.stairs(
                dense / max(dense.max(), 1),
                edges,
                fill=True,
                color=style.BEFORE,
                alpha=0.45,
            )
        packed = np.asarray(counts["packed"], float)
        axes.bar(
            (edges[:-1] + edges[1:]) / 2,
            packed / max(packed.max(), 1),
            width=0.62 * (edges[1] - edges[0]),
            color=style.ACCENT,
        )
        zero = 1 - layer["nonzero"] / max(layer["params"], 1)
        axes.set_title(name, size=8.5, pad=14)
        axes.text(
            0,
            1.035,
            f"{layer['bits']} bits, {100 * zero:.1f} % zeros left out",
            transform=axes.transAxes,
            color=style.MUTED,
            size=7.5,
        )
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        style.bare(axes)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    return drawn
