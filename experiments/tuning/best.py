"""The best trials, as config files that run as they are."""

import pathlib
import pprint
from collections.abc import Mapping
from typing import Any

from lib import files

ROOT = pathlib.Path(__file__).parents[2]


def write(
    path: pathlib.Path, base: str, settings: Mapping[str, Any], about: str
) -> pathlib.Path:
    """Writes a config file that is the base with other values; returns its path.

    Args:
      path: of the file.
      base: what was searched, `FILE.py[:variant]`.
      settings: {path of a field: value}.
      about: one line on what it is.
    """
    file, _, variant = base.partition(":")
    source = pathlib.Path(file)
    inside = source.absolute()
    if not source.exists():
        inside = ROOT / source
    if inside.is_relative_to(ROOT / "configs"):
        module = ".".join(inside.relative_to(ROOT).with_suffix("").parts)
        package, _, name = module.rpartition(".")
        head = f"from {package} import {name} as base"
        make = "base.get_config"
    else:
        head = f"import runpy\n\nBASE = runpy.run_path({str(inside)!r})"
        make = 'BASE["get_config"]'
    lines = "\n".join(_line(*one) for one in settings.items())
    files.write_text(
        path,
        f'"""{about}\n\n'
        f"    python run.py --config={path} --workdir=DIR\n"
        f'"""\n\n{head}\n\n\n'
        f'def get_config(arg="{variant}"):\n'
        f"    config = {make}(arg)\n"
        "    with config.unlocked(), config.ignore_type():\n"
        f"{lines}\n"
        "    return config\n",
    )
    return path


def _line(field: str, value: Any) -> str:
    shown = pprint.pformat(value, width=60, sort_dicts=False)
    return f"        config.{field} = " + shown.replace("\n", "\n        ")
