"""What to try against a verdict, each as an override of the config that was judged."""

from typing import Any, NamedTuple

from lib.diagnosis import fit


class Remedy(NamedTuple):
    """One change.

    Attributes:
      why: what it does, in words.
      override: for the command line, `--config.dense.model.dropout=0.3`.
    """

    why: str
    override: str


def of(config: Any, name: str, verdict: fit.Verdict, sizes: Any) -> list[Remedy]:
    """Returns what to try, the likeliest first; [] where nothing is wrong.

    Args:
      config: the one that was judged.
      name: of the stage.
      verdict: on it.
      sizes: (path of the setting, its values) of the models by size.
    """
    find = {
        fit.OVERFITS: _overfits,
        fit.UNDERFITS: _underfits,
        fit.STARVED: _starved,
        fit.FITS: lambda *_: [],
    }
    return find[verdict.kind](config, name, verdict, sizes)


def override(path: str, value: Any) -> str:
    """Returns the setting as a word of a shell's command line."""
    text = f'"{value!r}"' if isinstance(value, tuple) else str(value)
    return f"--config.{path}={text}"


def _overfits(config: Any, name: str, verdict: fit.Verdict, sizes: Any):
    stage, found = config[name], []
    if verdict.smaller is not None:
        field, values = sizes
        why = "the smallest model that was as good"
        found.append(Remedy(why, override(field, values[verdict.smaller])))
    if "dropout" in stage.model:
        more = min(stage.model.dropout + 0.3, 0.7)
        why = "units that cannot rely on one another"
        found.append(Remedy(why, override(f"{name}.model.dropout", round(more, 2))))
    decay = 10 * stage.weight_decay or 0.1
    why = "weights that are kept small"
    found.append(Remedy(why, override(f"{name}.weight_decay", decay)))
    found += _shifted(config, name)
    why = "the checkpoint that validates best, not the last one"
    if stage.use != "best":
        found.append(Remedy(why, override(f"{name}.use", "best")))
    return found


def _underfits(config: Any, name: str, verdict: fit.Verdict, sizes: Any):
    stage, found = config[name], []
    if verdict.larger is not None:
        field, values = sizes
        why = "the best of the larger models"
        found.append(Remedy(why, override(field, values[verdict.larger])))
    elif "widths" in stage.model:
        wide = tuple(2 * width for width in stage.model.widths) or (64,)
        why = "twice as many units"
        found.append(Remedy(why, override(f"{name}.model.widths", wide)))
    why = "twice as long"
    found.append(Remedy(why, override(f"{name}.steps", 2 * stage.steps)))
    why = "larger steps"
    rate = float(f"{3 * stage.learning_rate:.3g}")
    found.append(Remedy(why, override(f"{name}.learning_rate", rate)))
    if "dropout" in stage.model and stage.model.dropout:
        why = "no units dropped"
        found.append(Remedy(why, override(f"{name}.model.dropout", 0.0)))
    if stage.weight_decay:
        why = "weights that may grow"
        found.append(Remedy(why, override(f"{name}.weight_decay", 0.0)))
    if stage.augment:
        why = "inputs as they are"
        found.append(Remedy(why, override(f"{name}.augment", ())))
    return found


def _starved(config: Any, name: str, verdict: fit.Verdict, sizes: Any):
    del verdict, sizes
    stage, found = config[name], _shifted(config, name)
    if "cross_entropy" in stage.objective and not config.cross_entropy.label_smoothing:
        why = "labels that are not taken at their word"
        found.append(Remedy(why, override("cross_entropy.label_smoothing", 0.1)))
    if not config.data.validation:
        half = round(config.data.validation_fraction / 2, 4)
        why = "more of the examples to learn from, fewer to judge by"
        found.append(Remedy(why, override("data.validation_fraction", half)))
    why = "weights that were trained on more data: a file of yours"
    found.append(Remedy(why, override(f"{name}.weights", "FILE")))
    return found


def _shifted(config: Any, name: str) -> list[Remedy]:
    if config.data.kind != "image" or config[name].augment:
        return []
    why = "every image a little displaced, each time"
    return [Remedy(why, override(f"{name}.augment", ("shift",)))]
