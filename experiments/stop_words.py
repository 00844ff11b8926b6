"""What it costs or gains to take stop words out of texts.

The stages of the config are trained on the texts as they are and without the words of
each list in `config.compare.stop_words`, for every seed in `config.compare.seeds`, and
the last one's packed file is measured. Which is best is decided on validation data; the
test split is looked at once, at the end.
"""

import copy
import pathlib
from typing import Any

import numpy as np

from experiments import check, recipe, repeats, workdir
from lib import errors, files
from lib.data import dataset, splits
from lib.deploy import measure
from lib.report import progress, results

NAME = "stop_words.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Trains what is not trained yet; writes and returns `stop_words.json`."""
    _check(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return _show(at, files.read_json(at / NAME))
    lists = ("", *config.compare.stop_words)
    data = {words: recipe.load_data(_without(config, words).data) for words in lists}
    workdir.claim(at, config)
    rows = [_row(config, words, data[words], at) for words in lists]
    best = chosen(rows)
    for row in rows:
        test = data[row["list"]].test
        row["test"] = [
            repeats.accuracy(config, test, folder)
            for folder in _folders(config, row["list"], at)
        ]
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "rows": rows,
        "chosen": best,
        "examples": {"validation": len(data[""].validation)}
        | {"test": len(data[""].test)},
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    from lib.report import stop_words  # matplotlib: not for those who only train

    stop_words.write(at, result)
    return _show(at, result)


def chosen(rows: list[dict[str, Any]]) -> str:
    """Returns the list with the highest median; of equal ones that of fewest words."""
    best = max(np.median(row["validation"]) for row in rows)
    equal = [row for row in rows if np.median(row["validation"]) == best]
    return min(equal, key=lambda row: row["words"])["list"]


def _check(config: Any) -> None:
    """Raises a `UserError` for lists that cannot be compared."""
    check.settings(config)
    if config.data.kind != "text":
        raise errors.UserError(
            "stop_words are words of texts: set data.kind='text', got "
            f"{config.data.kind!r}"
        )
    if config.data.text.stop_words:
        raise errors.UserError(
            "texts with and without stop words are compared: name the list in "
            "compare.stop_words, and clear data.text.stop_words, got "
            f"{config.data.text.stop_words!r}"
        )
    lists = tuple(config.compare.stop_words)
    if not lists or "" in lists or len(set(lists)) < len(lists):
        raise errors.UserError(
            "compare.stop_words is one or more different lists, each as "
            f"data.text.stop_words, got {lists}"
        )
    if not config.compare.seeds:
        raise errors.UserError("compare.seeds is empty; name at least one seed")


def _without(config: Any, words: str, seed: int = 0) -> Any:
    """Returns the config of one run."""
    one = copy.deepcopy(config)
    one.data.text.stop_words = words
    one.seed = seed
    return one


def _folders(config: Any, words: str, at: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folder of each seed of a list; "" is that of the texts as they are.

    They are numbered: a list may be a path.
    """
    number = ("", *config.compare.stop_words).index(words)
    return [at / f"list_{number}" / f"seed_{s}" for s in config.compare.seeds]


def _row(
    config: Any, words: str, data: dataset.Dataset, at: pathlib.Path
) -> dict[str, Any]:
    """Returns what was found without the words of one list, trained for every seed."""
    folders = _folders(config, words, at)
    held_out = splits.may_choose(data.validation, "whether stop words are taken out")
    accuracies = []
    for seed, folder in zip(config.compare.seeds, folders, strict=True):
        repeats.train(_without(config, words, seed), data, folder)
        accuracies.append(repeats.accuracy(config, held_out, folder))
    sizes = [repeats.last(config, folder).stat().st_size for folder in folders]
    progress.say(
        f"{f'without {words}' if words else 'all words'}: validation accuracy "
        f"{np.median(accuracies):.4f}, {int(np.median(sizes)):,} bytes"
    )
    return {
        "list": words,
        "words": len(data.inputs.stop_words),
        "validation": accuracies,
        "bytes": sizes,
        "counts": dict(data.counts),
    }


def _show(at: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Prints what each list cost or gained, and where the report is."""
    from lib.report import stop_words

    for sentence in stop_words.sentences(result):
        progress.say(sentence)
    progress.say(f"report: {at / results.PAGE}")
    return result
