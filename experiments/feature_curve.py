"""How accuracy moves with the number of features that are kept of a table.

The stages of the config are trained for every number in `config.curve.keep` and every
seed in `config.curve.seeds`, and the last one's packed file is measured on validation
data. The number is chosen there; the test split is looked at once, at the end, for what
was chosen and for the largest number.
"""

import copy
import pathlib
from typing import Any

import numpy as np

from experiments import check, recipe, repeats, told, workdir
from lib import errors, files
from lib.data import dataset, splits
from lib.deploy import measure
from lib.report import progress, results

NAME = "features.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Trains what is not trained yet; writes and returns `features.json`."""
    _check(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return _show(at, files.read_json(at / NAME))
    data = {k: recipe.load_data(_kept(config, k).data) for k in config.curve.keep}
    workdir.claim(at, config)
    rows = [_row(config, keep, data[keep], at) for keep in config.curve.keep]
    best = chosen(rows)
    most = max(config.curve.keep)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "rows": rows,
        "chosen": best,
        "examples": {"validation": len(data[best].validation)}
        | {"test": len(data[best].test)},
        "test": {
            str(k): [
                repeats.accuracy(config, data[k].test, _folder(at, k, seed))
                for seed in _seeds(config)
            ]
            for k in sorted({best, most})
        },
        "data": told.plain(data[best]),
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    from lib.report import feature_curve  # matplotlib: not for those who only train

    feature_curve.write(at, result)
    return _show(at, result)


def chosen(rows: list[dict[str, Any]]) -> int:
    """Returns the number with the highest median; of equal ones the fewest features."""
    best = max(np.median(row["validation"]) for row in rows)
    return min(r["keep"] for r in rows if np.median(r["validation"]) == best)


def _check(config: Any) -> None:
    """Raises a `UserError` for a curve that cannot be drawn."""
    check.settings(config)
    if config.data.kind != "table" or not config.data.table.select:
        raise errors.UserError(
            "feature_curve chooses features of a table: set data.kind='table' and "
            "data.table.select"
        )
    keep = config.curve.keep
    if len(set(keep)) < max(2, len(keep)) or any(k != int(k) or k < 1 for k in keep):
        raise errors.UserError(
            f"curve.keep is two or more different numbers of features, got {keep}"
        )
    if not config.curve.seeds:
        raise errors.UserError("curve.seeds is empty; name at least one seed")


def _seeds(config: Any) -> tuple[int, ...]:
    return tuple(config.curve.seeds)


def _kept(config: Any, keep: int, seed: int = 0) -> Any:
    """Returns the config of one run."""
    one = copy.deepcopy(config)
    one.data.table.keep = float(keep)
    one.seed = seed
    return one


def _folder(at: pathlib.Path, keep: int, seed: int) -> pathlib.Path:
    return at / f"keep_{keep}" / f"seed_{seed}"


def _row(
    config: Any, keep: int, data: dataset.Dataset, at: pathlib.Path
) -> dict[str, Any]:
    """Returns what was found of one number of features, trained for every seed."""
    accuracies, sizes = [], []
    for seed in _seeds(config):
        folder = _folder(at, keep, seed)
        repeats.train(_kept(config, keep, seed), data, folder)
        held_out = splits.may_choose(data.validation, "the number of features")
        accuracies.append(repeats.accuracy(config, held_out, folder))
        sizes.append(repeats.last(config, folder).stat().st_size)
    progress.say(
        f"{keep} features: validation accuracy {np.median(accuracies):.4f}, "
        f"{int(np.median(sizes)):,} bytes"
    )
    return {"keep": int(keep), "validation": accuracies, "bytes": sizes}


def _show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints what was chosen and where the report is."""
    for keep, accuracies in result["test"].items():
        known = "chosen" if int(keep) == result["chosen"] else "the most"
        progress.say(
            f"{keep} features ({known}): test accuracy {np.median(accuracies):.4f}, "
            f"n = {len(accuracies)}"
        )
    progress.say(f"report: {at / results.PAGE}")
    return result
