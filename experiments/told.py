"""What a run tells of its data: what was missing or unknown, and what was chosen."""

from typing import Any

from lib.data import dataset
from lib.report import progress

SHOWN = 20  # features; the report has all


def say(data: dataset.Dataset) -> None:
    """Prints a line for each thing that was counted, and one of the features."""
    for what, count in data.counts.items():
        progress.say(f"data: {what}: {count:,}")
    if data.features:
        kept = [one["name"] for one in data.features if one["kept"]]
        more = f" and {len(kept) - SHOWN} more" if len(kept) > SHOWN else ""
        progress.say(
            f"data: {len(kept)} of {len(data.features)} features are kept: "
            f"{', '.join(kept[:SHOWN])}{more}"
        )


def plain(data: dataset.Dataset) -> dict[str, Any]:
    """Returns what `result.json` keeps of it."""
    return {"counts": dict(data.counts), "features": list(data.features)}
