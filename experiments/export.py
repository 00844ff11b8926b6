"""Writes a finished stage as files of other runtimes, and measures those."""

import pathlib
from typing import Any

from experiments import shipping, targets, workdir
from lib import errors, files
from lib.deploy import measure


def run(config: Any, workdir_: str) -> dict[str, Any]:
    """Exports `config.stage` of `config.run`; writes and returns `export.json`."""
    for key in ("run", "stage"):
        if not config[key]:
            raise errors.UserError(
                f"export: config.{key} is empty; name a finished one"
            )
    if not config.export.targets:
        raise errors.UserError(
            f"config.export.targets is empty; valid: {', '.join(targets.TARGETS)}"
        )
    targets.check(config.export.targets, "config.export.targets")
    shipping.check_times(config.export)
    source = pathlib.Path(config.run)
    path = workdir.artifact_path(source, config.stage)
    if path.parent.is_dir():  # else the artifact cannot be read, and says so
        stages = [p.stem for p in sorted(path.parent.glob("*.pare"))]
        errors.lookup(dict.fromkeys(stages), config.stage, f"stage of {config.run}")
    targets.load(path)
    at = workdir.claim(workdir_, config)
    floats = stages = (config.stage,)
    wanted = shipping.items(source, at, config.export, stages, floats)
    shipped = shipping.ship(source, wanted, config.export, config.eval_batch_size)
    result = {
        "run": str(config.run),
        "stage": config.stage,
        **shipped.plain(),
        "environment": measure.environment() | shipped.versions,
    }
    files.write_json(at / "export.json", result)
    shipping.show(result)
    return result
