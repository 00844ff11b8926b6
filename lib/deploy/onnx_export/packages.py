"""The packages that only exporting needs, imported when they are used."""

import importlib
from types import ModuleType

from lib import errors


def require(name: str) -> ModuleType:
    """Returns the module called `name`, such as `onnx` or `onnx.checker`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise errors.UserError(
            f"the ONNX export needs {name.partition('.')[0]}, which cannot be imported "
            f"({e}); pip install -r requirements-deploy.txt"
        ) from e
