"""Which techniques may follow which on one leaf, and what to do instead.

Nearly every order has a meaning. The few that have none stand in `REFUSED`.
"""

from collections.abc import Mapping, Sequence

from lib import errors

# (earlier, later) technique on one leaf -> why that has no meaning, and what has.
REFUSED: dict[tuple[str, str], str] = {}


def name(how: str) -> str:
    """Returns the technique's name of what `plan` lists, as prune of "prune(0.9)"."""
    return how.split("(")[0]


def check(steps: Sequence[Mapping[str, str]]) -> None:
    """Raises a `UserError` for an order without a meaning.

    Args:
      steps: for each technique of a chain, {path that it takes: how it treats it}. A
        later path that lies below an earlier one is part of the same leaf.
    """
    for i, earlier in enumerate(steps):
        for later in steps[i + 1 :]:
            for path, how in later.items():
                for above, before in earlier.items():
                    if path != above and not path.startswith(f"{above}/"):
                        continue
                    for first in before.split(", "):
                        why = REFUSED.get((name(first), name(how)))
                        if why:
                            raise errors.UserError(
                                f"{path}: {name(first)} before {name(how)}: {why}"
                            )
