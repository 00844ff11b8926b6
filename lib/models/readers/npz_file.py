"""Arrays from an `.npz` archive."""

import io
import pathlib

import numpy as np

from lib import errors
from lib.models.readers import base


def read(path: pathlib.Path) -> base.Entries:
    """Returns the arrays of an `.npz` by name.

    Raises:
      UserError: it cannot be read or is damaged.
    """
    try:
        whole = io.BytesIO(path.read_bytes())  # NumPy leaves a damaged file open
        with np.load(whole, allow_pickle=False) as found:
            return base.held(dict(found))
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except Exception as e:  # whatever a damaged archive makes NumPy raise
        raise errors.UserError(f"{path} is no archive of arrays: {e}") from e
