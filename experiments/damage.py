"""Who got worse when a model was compressed, judged on validation examples."""

from typing import Any

from experiments import finished, workdir
from lib import errors, files
from lib.data import splits
from lib.deploy import measure
from lib.diagnosis import damage, intervals
from lib.report import progress, rows

NAME = "damage.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Compares two stages of `config.run`; writes and returns `damage.json`."""
    if config.bins < 1 or config.samples < 1 or config.worst < 0:
        raise errors.UserError(
            "damage: expected bins and samples from 1 and worst from 0, got "
            f"{config.bins}, {config.samples} and {config.worst}"
        )
    intervals.level(config.confidence)
    dense, small = (
        finished.load(config.run, name, "damage")
        for name in (config.dense, config.compressed)
    )
    at = workdir.claim(workdir_path, config)
    data = finished.data_of(dense)
    split = splits.may_choose(data.validation, "a comparison")
    found = damage.compare(
        finished.logits(dense, split, config.eval_batch_size),
        finished.logits(small, split, config.eval_batch_size),
        finished.labels(split),
        bins=config.bins,
        confidence=config.confidence,
        samples=config.samples,
        seed=config.seed,
    )
    names = data.names or tuple(map(str, range(data.classes)))
    plain = found._asdict()
    plain["difference"] = found.difference._asdict()
    plain["classes"] = [{"name": names[c.label], **c._asdict()} for c in found.classes]
    plain["worst"] = found.worst[: config.worst].tolist()
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "examples": len(split),
        **plain,
    }
    files.write_json(at / NAME, result)
    return show(files.read_json(at / NAME))


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the comparison and a line a class."""
    config, gap = result["config"], result["difference"]
    lines = [["class", "examples", "dense %", "compressed %", "lost", "won", "p"]]
    for one in result["classes"]:
        lines.append(
            [
                *(one["name"], str(one["count"])),
                *(f"{100 * one[k]:.2f}" for k in ("before", "after")),
                *(str(one[k]) for k in ("lost", "won")),
                f"{one['p']:.2g}",
            ]
        )
    progress.say(rows.text(lines))
    progress.say(
        f"{config['compressed']} against {config['dense']} on {result['examples']:,} "
        f"validation examples: accuracy {100 * result['before']:.2f} -> "
        f"{100 * result['after']:.2f} %, {100 * config['confidence']:g} % interval of "
        f"the difference {100 * gap['low']:+.2f} to {100 * gap['high']:+.2f} points"
    )
    progress.say(
        f"{result['lost']} went from right to wrong, {result['won']} from wrong to "
        f"right, {result['moved']} from one wrong class to another; McNemar's p "
        f"{result['p']:.2g}"
    )
    progress.say(
        f"calibration error {100 * result['calibration_before']:.2f} -> "
        f"{100 * result['calibration_after']:.2f} % ({config['bins']} bins)"
    )
    return result
