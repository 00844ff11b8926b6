"""What is wrong with a command line that flags and config do not take."""

import pathlib
import re
import runpy

from lib import errors

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def configs() -> list[pathlib.Path]:
    """Returns the config files that can be run."""
    return [p for p in sorted(CONFIGS.rglob("*.py")) if p.name != "common.py"]


def explain(argv: list[str], error: Exception) -> str:
    """Returns one line on why parsing `argv` raised `error`, with what is valid."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]  # ml_collections hides one in another
    text = error
    if isinstance(error, LookupError):  # whose own text is in quotes
        text = unknown_setting(argv) or error.args[0]
    return " ".join(str(text).split())


def check_config(argv: list[str]) -> None:
    """Raises a `UserError` if there is no file of the name that --config gives."""
    path = (config_path(argv) or "").split(":")[0]
    if path and not (path.endswith(".py") and pathlib.Path(path).is_file()):
        known = [str(p.relative_to(CONFIGS.parent)) for p in configs()]
        raise errors.UserError(f"no config file {path!r}; {errors.hint(path, known)}")


def config_path(argv: list[str]) -> str | None:
    """Returns what --config is set to, `FILE.py[:variant]`, None without it."""
    for arg, following in zip(argv, [*argv[1:], None], strict=True):
        if re.fullmatch("--?config", arg):
            return following
        if re.match("--?config=", arg):
            return arg.split("=", 1)[1]
    return None


def unknown_setting(argv: list[str]) -> str:
    """Returns a line on the first override that names no setting, "" if all do."""
    path, _, variant = config_path(argv).partition(":")
    try:
        config = runpy.run_path(path)["get_config"](variant)
    except LookupError:  # it is the config file that has an error
        return ""
    for arg in argv:
        override = re.match(r"--?(?:no)?config\.([^=]+)", arg)
        if not override:
            continue
        node = config
        for part in re.sub(r"\[\d+\]", "", override[1]).split("."):
            if not hasattr(node, "keys") or part not in node:
                valid = list(node.keys()) if hasattr(node, "keys") else []
                return f"unknown setting {override[1]!r}; {errors.hint(part, valid)}"
            node = node[part]
    return ""
