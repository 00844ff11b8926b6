"""Labels beside points, where they cover neither one another nor a point."""

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from lib.report import style

# (dx, dy) in points from the mark, horizontal and vertical alignment; best first.
SPOTS = (
    (10, 0, "left", "center"),
    (0, 10, "center", "bottom"),
    (0, -10, "center", "top"),
    (-10, 0, "right", "center"),
    (8, 8, "left", "bottom"),
    (8, -8, "left", "top"),
    (-8, 8, "right", "bottom"),
    (-8, -8, "right", "top"),
    (0, 36, "center", "bottom"),
    (0, -36, "center", "top"),
)


def place(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    strong: Sequence[bool],
    line: Sequence[tuple[float, float]],
) -> None:
    """Writes a text beside each point, greedily at the spot that covers least.

    Args:
      axes: with its limits and scales already set.
      xs, ys: in data units.
      texts: of one or two lines.
      strong: which labels are bold.
      line: the corners of a line that is better not covered, in data units.
    """
    drawn = axes.figure
    drawn.draw_without_rendering()  # settles the layout, so that places are known
    frame = axes.get_window_extent()
    marks = [axes.transData.transform(p) for p in zip(xs, ys, strict=True)]
    corners = [axes.transData.transform(p) for p in line]
    pieces = [
        Bbox([(min(a, c) - 2, min(b, d) - 2), (max(a, c) + 2, max(b, d) + 2)])
        for (a, b), (c, d) in itertools.pairwise(corners)
    ]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in marks]
    for i, text in enumerate(texts):
        best = None
        for rank, (dx, dy, across, up) in enumerate(SPOTS):
            note = axes.annotate(
                text,
                (xs[i], ys[i]),
                (dx, dy),
                textcoords="offset points",
                ha=across,
                va=up,
                size=8.5,
                linespacing=1.25,
                weight="bold" if strong[i] else "normal",
                color=style.INK,
                bbox={"fc": style.PAPER, "ec": "none", "pad": 1.5, "alpha": 0.8},
            )
            note.set_in_layout(False)
            box = note.get_window_extent()
            others = taken[:i] + taken[i + 1 :]
            covered = sum(_overlap(box, other) for other in others + pieces)
            outside = box.width * box.height - _overlap(box, frame)
            cost = (covered + outside, rank)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, note, box)
            else:
                note.remove()
        taken.append(best[2])


def _overlap(a: Bbox, b: Bbox) -> float:
    """Returns the area that both boxes cover."""
    both = Bbox.intersection(a, b)
    return both.width * both.height if both is not None else 0.0
