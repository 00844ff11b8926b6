"""What was removed from each group of channels, neurons or heads, as a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lib.report import formats, sections, style

BARS = 60  # groups that one picture shows


@style.styled()
def picture(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws each group as a bar as long as it was, filled as far as it was kept.

    Args:
      groups: `{"name", "size", "kept", "members"}`, the first `BARS` of them are drawn.
    """
    shown = groups[:BARS]
    drawn = style.figure(7.5, 0.5 + 0.3 * len(shown))
    axes = drawn.add_subplot()
    places = np.arange(len(shown))
    sizes = np.array([group["size"] for group in shown])
    kept = np.array([group["kept"] for group in shown])
    axes.barh(places, sizes, height=0.56, color=style.FAINT, alpha=0.5)
    axes.barh(places, kept, height=0.56, color=style.ACCENT)
    for place, group in zip(places, shown, strict=True):
        words = f"{formats.exact(group['kept'])} of {formats.exact(group['size'])}"
        count = len(group["members"])
        told = [(6, words, style.INK, "bold")]
        told.append(
            (84, f"in {count} weight{'s' * (count > 1)}", style.MUTED, "normal")
        )
        for offset, text, colour, weight in told:
            axes.annotate(
                text,
                (sizes.max(), place),
                (offset, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                weight=weight,
            )
    names = formats.short_paths([group["name"] for group in shown], 44)
    axes.set_yticks(places, names, color=style.INK)
    axes.set_xlim(0, sizes.max())
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def section(result: Mapping[str, Any]) -> str:
    """Returns the sections of the stages that removed something, or nothing."""
    parts = []
    for number, stage in enumerate(result["stages"]):
        groups = stage.get("cut")
        if not groups:
            continue
        sizes, kept = (sum(group[k] for group in groups) for k in ("size", "kept"))
        told = ", ".join(f"{g['name']} {g['kept']} of {g['size']}" for g in groups)
        svg = style.inline(picture(groups), f"cut{number}", f"Kept: {told}")
        worst = stage["metrics"].get("masked_minus_small")
        note = (
            f"{formats.exact(kept)} of {formats.exact(sizes)} units are left. What is "
            "cut together is one group: a channel of a layer, its norm, and the inputs "
            "of every layer that reads it."
        )
        if worst is not None:
            note += (
                " The small network was compared with the large one with zeros in "
                f"place of what was removed: outputs differ by {worst:.2g} at the most."
            )
        if len(groups) > BARS:
            note += f" The last {len(groups) - BARS} groups are left out."
        title = f"Removed before {stage['name']}"
        body = f'<figure class="narrow">{svg}</figure>\n'
        parts.append(sections.section(title, note, body))
    return "".join(parts)
