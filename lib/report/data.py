"""What was counted in the data, and which of a table's features were kept."""

from collections.abc import Mapping
from typing import Any

from lib.report import formats, sections


def section(result: Mapping[str, Any]) -> str:
    """Returns the section of a result's data, or nothing where nothing is told."""
    told = result.get("data") or {"counts": {}, "features": []}
    counts, features = told["counts"], told["features"]
    words, body = [], ""
    if counts:
        lines = [
            sections.line(what, [sections.cell(formats.exact(count))])
            for what, count in counts.items()
        ]
        body += sections.table(["Counted", "How often"], lines)
    if features:
        kept = sum(one["kept"] for one in features)
        words.append(
            f"{kept} of {len(features)} features are kept, chosen on the training "
            "split alone. A higher score is better."
        )
        # The best first; the order of the inputs among equals.
        ranked = sorted(features, key=lambda one: (not one["kept"], _badness(one)))
        lines = [
            sections.line(
                one["name"],
                [
                    sections.cell(
                        formats.MISSING
                        if one["score"] is None
                        else formats.scalar(one["score"])
                    ),
                    sections.cell("kept" if one["kept"] else "left out"),
                ],
                mono=True,
            )
            for one in ranked
        ]
        body += sections.table(["Feature", "Score", "Kept"], lines)
    return sections.section("Data", " ".join(words), body) if body else ""


def _badness(feature: Mapping[str, Any]) -> float:
    return 0.0 if feature["score"] is None else -feature["score"]
