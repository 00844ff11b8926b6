"""Packages that only one kind of file needs, imported when they are used."""

import importlib
from types import ModuleType

from lib import errors


def require(module: str, what: str, install: str) -> ModuleType:
    """Returns an installed module, such as `safetensors.numpy`.

    Args:
      module: its dotted name.
      what: what needs it, for the message.
      install: the file of requirements that names its package.

    Raises:
      UserError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise errors.UserError(
            f"{what} needs {module.partition('.')[0]}, which cannot be imported ({e}); "
            f"pip install -r {install}"
        ) from e
