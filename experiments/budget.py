"""At most so many bytes, milliseconds and points lost: what each layer becomes.

Channels go until a batch is fast enough; then each layer takes bits, sparsity, rank or
clusters. What a layer costs is read from its sensitivity curves, what it takes from
packing it; a knapsack chooses, the stage is fine-tuned so, and the file that comes out
is measured. All choices look at validation data; the test split is measured at the end,
once, for what was chosen.
"""

import time
from typing import Any

from experiments import recipe, workdir
from experiments.budgeting import ladder, search, settings, stages, verdict
from lib import files
from lib.data import splits
from lib.deploy import measure
from lib.report import progress

NAME = "budget.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Chooses, trains and measures; writes and returns `budget.json`."""
    settings.limits(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists():
        progress.say(f"{at} is finished; this is what it found")
        return verdict.show(files.read_json(at / NAME))
    data = recipe.load_data(config.data)
    settings.fits(config, data)
    workdir.claim(at, config)
    began = time.perf_counter()
    dense = stages.train(stages.dense(config), data, at)
    split = splits.may_choose(data.validation, "what each layer becomes")
    before = search.accuracy(dense, split, config)
    times = ladder.clock(config, data, at)
    bench = search.Bench(config, data, at, times, before)
    rungs, least = ladder.Ladder(config, data, at, times), []

    def attempts(place: int) -> list[search.Attempt]:
        tried, smallest = search.at_cut(bench, place)
        least.extend([] if smallest is None else [smallest])
        return tried

    tried = search.over_cuts(rungs.start(), len(rungs.shares), attempts, config.budget)
    chosen = verdict.best(tried, config.budget)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "seconds": time.perf_counter() - began,
        "examples": {"validation": len(split), "test": len(data.test)},
        "dense": {"bytes": dense.stat().st_size, "validation_accuracy": before},
        "ladder": rungs.plain(),
        "smallest": min(least, default=None),
        "tried": tried,
        "chosen": chosen,
        "met": verdict.meets(tried[chosen], config.budget),
        "test": {
            "dense": search.accuracy(dense, data.test, config),
            "chosen": search.accuracy(
                workdir.artifact_path(at, tried[chosen]["stage"]), data.test, config
            ),
        },
    }
    files.write_json(at / NAME, result)
    return verdict.show(files.read_json(at / NAME))
