"""Linen modules of the user's own, by texts such as `my_package.my_module:MyModel`."""

import importlib
import os
import sys
import traceback
from types import ModuleType

from flax import linen as nn

from lib import errors


def load(text: str) -> type[nn.Module]:
    """Returns the class that a config's `factory` names.

    Its module is imported as Python does it, and from the current folder if nothing
    before it has the name: that folder comes to the end of `sys.path`.

    Args:
      text: `module:Class`; the module may be inside packages.

    Raises:
      UserError: another text, no such module, one that lacks what it imports or fails
        as it is run, no such name in it, or one that is no Linen module.
    """
    path, _, name = str(text).partition(":")
    if not (name.isidentifier() and all(p.isidentifier() for p in path.split("."))):
        raise errors.UserError(
            "a model's factory is 'my_package.my_module:MyModel', a module and a class "
            f"in it, got {text!r}"
        )
    found = vars(_imported(path, text))
    if name not in found:
        there = [n for n, value in found.items() if _is_linen(value)]
        raise errors.UserError(
            f"model {text!r}: no {name!r} in {path}; {errors.hint(name, there)}"
        )
    if not _is_linen(found[name]):
        raise errors.UserError(
            f"model {text!r}: expected a class derived from flax.linen.Module, got "
            f"{type(found[name]).__name__}"
        )
    return found[name]


def _imported(path: str, text: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # the file may be newer than this process
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as e:
        if e.name and f"{path}.".startswith(f"{e.name}."):
            raise errors.UserError(
                f"model {text!r}: no module {e.name!r} on PYTHONPATH or in the current "
                f"folder, {here}"
            ) from e
        raise errors.UserError(f"model {text!r}: cannot import {path}: {e}") from e
    except ImportError as e:
        raise errors.UserError(f"model {text!r}: cannot import {path}: {e}") from e
    except Exception as e:  # a module may raise anything as it is run
        at = traceback.extract_tb(e.__traceback__)[-1]
        where = "" if isinstance(e, SyntaxError) else f" ({at.filename}:{at.lineno})"
        raise errors.UserError(
            f"model {text!r}: cannot import {path}: {type(e).__name__}: {e}{where}"
        ) from e


def _is_linen(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
