"""Arrays from a safetensors file, by NumPy alone.

Eight bytes with the header's length (little-endian), the header as JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the bytes of all
arrays, row-major and little-endian (https://huggingface.co/docs/safetensors). Only the
header is read at first; an array is mapped when it is wanted.
"""

import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.models.readers import base

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_LONGEST = 100_000_000  # bytes of a header, as the format's own reader has it


def read(path: pathlib.Path) -> base.Entries:
    """Returns the arrays of a safetensors file by name; reads no more than its header.

    Raises:
      UserError: it cannot be read or is damaged, or has a dtype that is not known.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST:
                raise ValueError(f"its header would be {length:,} bytes long")
            header = json.loads(file.read(length))
        size = path.stat().st_size - 8 - length
        if not isinstance(header, dict):
            raise ValueError("its header is no table of arrays")
        header.pop("__metadata__", None)
        return {
            name: _entry(path, name, about, 8 + length, size)
            for name, about in header.items()
        }
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise errors.UserError(f"{path} is damaged or no safetensors file: {e}") from e


def _entry(
    path: pathlib.Path, name: str, about: Any, start: int, size: int
) -> base.Entry:
    """Returns an array's entry, with its place found to be inside the file."""
    if about["dtype"] not in _DTYPES:
        raise ValueError(f"{name!r} has the unknown dtype {about['dtype']!r}")
    dtype, shape = _DTYPES[about["dtype"]], tuple(about["shape"])
    begin, end = about["data_offsets"]
    counts = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
    if not counts or end > size or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} is not where its header says")

    def take() -> np.ndarray:
        if begin == end:  # nothing can be mapped
            return np.zeros(shape, dtype)
        try:
            return np.memmap(path, dtype, "r", start + begin, shape)
        except (OSError, ValueError) as e:  # gone, or cut since its header was read
            raise errors.UserError(f"cannot read {name!r} of {path}: {e}") from e

    return base.Entry(shape, take)
