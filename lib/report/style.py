"""The look of all plots: one palette, quiet axes, and figures as SVG or PNG."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import files

INK = "#1d2530"
MUTED = "#697586"
FAINT = "#c9d1db"
PAPER = "#ffffff"
BEFORE = "#a9b4c2"  # the dense baseline, or the noisier of two curves
ACCENT = "#1f6feb"  # what Pare made
SECOND = "#d97706"

# What the page's style sheet calls them, so that plots follow a dark page.
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--faint)",
    PAPER: "var(--paper)",
    BEFORE: "var(--before)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}

FONTS = ("Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")


def rc() -> dict[str, object]:
    """Returns the settings under which figures are made and written."""
    have = set(font_manager.fontManager.get_font_names())
    return {
        "font.family": [name for name in FONTS if name in have],
        "font.size": 9.0,
        "text.parse_math": False,  # names of weights and stages are no formulas
        "text.color": INK,
        "axes.facecolor": "none",
        "axes.edgecolor": FAINT,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 8.5,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlecolor": INK,
        "figure.facecolor": PAPER,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "xtick.color": FAINT,
        "xtick.labelcolor": MUTED,
        "xtick.labelsize": 8.0,
        "ytick.color": FAINT,
        "ytick.labelcolor": MUTED,
        "ytick.labelsize": 8.0,
        "ytick.major.size": 0.0,
        "xtick.major.size": 3.0,
        "xtick.minor.size": 1.5,
    }


@contextlib.contextmanager
def styled(**settings: object) -> Iterator[None]:
    """Holds the settings of `rc` and those given; for `with`, or as a decorator."""
    with matplotlib.rc_context(rc() | settings), warnings.catch_warnings():
        # A name in a script that no font here has is drawn as boxes in a PNG, and
        # is right in an SVG, whose reader brings the font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of `width` by `height` inches, without pyplot."""
    return Figure(figsize=(width, height), layout="constrained")


def bare(axes: Axes) -> None:
    """Leaves nothing of the vertical axis."""
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])


def _render(drawn: Figure, form: str, **settings: object) -> bytes:
    out = io.BytesIO()
    kept = {"Date": None} if form == "svg" else {}
    with styled(**settings):
        drawn.savefig(out, format=form, dpi=200, metadata=kept)
    return out.getvalue()


def png(drawn: Figure) -> bytes:
    """Returns the figure as PNG, 200 dots an inch, on white."""
    return _render(drawn, "png")


def svg(drawn: Figure) -> bytes:
    """Returns the figure as SVG that looks the same everywhere: text as outlines."""
    settings = {"svg.fonttype": "path", "svg.hashsalt": "pare"}
    return _render(drawn, "svg", **settings)


def inline(drawn: Figure, name: str, alt: str) -> str:
    """Returns an `<svg>` element for an HTML page.

    Text stays text, colours are the page's variables, and every id starts with
    `name`, so that several figures can stand in one page.

    Args:
      drawn: the figure.
      name: letters, different for each figure of a page.
      alt: what the figure shows, for those who do not see it.
    """
    settings = {"svg.fonttype": "none", "svg.hashsalt": name}
    text = _render(drawn, "svg", **settings).decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{head} role="img" aria-label="{label}">{rest.strip()}'


def save(drawn: Figure, path: str | os.PathLike) -> int:
    """Writes a `.png` or `.svg`, by the name's ending; returns the bytes written."""
    write = {".png": png, ".svg": svg}[Path(path).suffix]
    return files.write_bytes(path, write(drawn))
