"""The share of the channels that has to go for a batch to take no longer than it may.

Each share is cut, packed and timed before it learns again, the least first: what a
network takes does not depend on what its weights are.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from experiments import choices, evaluate, workdir
from experiments.budgeting import stages
from lib.data import dataset
from lib.report import progress

Times = dict[str, Any]  # median, low and high (quartiles) in milliseconds, n, batch

# Name of a stage -> its times; those of a stage are taken once.
Clock = Callable[[str], Times]


def clock(config: Any, data: dataset.Dataset, at: pathlib.Path) -> Clock:
    """Returns what times packed files as `evaluate` does.

    Milliseconds are not the same twice: what was measured is kept, so that a restart
    chooses as it did.
    """
    untested = data._replace(test=None)
    kept = choices.Choices(workdir.choices_path(at, "budget"))

    def times(name: str) -> Times:
        def measured() -> Times:
            path = workdir.artifact_path(at, name)
            return evaluate.alone(path, untested, config)["latency_ms"]

        return kept.once(name, measured)

    return times


def told(times: Times) -> str:
    """Returns times in words: the median, and how far they spread."""
    return (
        f"{times['median']:.2f} ms (half of {times['n']} from {times['low']:.2f} to "
        f"{times['high']:.2f}, batch {times['batch']})"
    )


class Ladder:
    """Cuts in the order of their shares, made and timed when they are asked for.

    Place 0 is the dense stage, whose share is 0.
    """

    def __init__(
        self, config: Any, data: dataset.Dataset, at: pathlib.Path, times: Clock
    ) -> None:
        """Makes nothing yet."""
        self._config, self._data, self._at, self._times = config, data, at, times
        self.shares = (0.0, *config.budget.channels)
        self.rungs: dict[int, Times] = {}

    def times(self, place: int) -> Times:
        """Returns the times of a cut that has not learned again."""
        if place not in self.rungs:
            cut, name = stages.cut(self._config, place, trained=False)
            stages.train(cut, self._data, self._at)
            self.rungs[place] = self._times(name)
            share = 100 * self.shares[place]
            progress.say(f"{share:g} % of channels cut: {told(self.rungs[place])}")
        return self.rungs[place]

    def start(self) -> int:
        """Returns the least cut that is fast enough; the last one if none is."""
        limit = self._config.budget.milliseconds
        places = range(len(self.shares) if limit else 1)
        for place in places:
            if not limit or self.times(place)["median"] <= limit:
                return place
        return places[-1]

    def plain(self) -> list[dict[str, Any]]:
        """Returns what was timed, least share first, for results to keep."""
        return [
            {"channels": self.shares[place], "latency_ms": self.rungs[place]}
            for place in sorted(self.rungs)
        ]
