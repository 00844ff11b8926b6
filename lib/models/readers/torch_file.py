"""Arrays from a file of PyTorch's, without PyTorch and without running what it says.

`torch.save` writes a pickle, which may call any function it names. Here the names are
those of tensors and no others; a file that asks for more is refused. Both layouts are
read: the zip archive (since PyTorch 1.6) and the older stream of pickles.
"""

import collections
import io
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.models.readers import base

_MAGIC = 0x1950A86A20F9469CFC6C  # begins the older layout
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


# What a file may name, beside the kinds of storage -> what it gets.
_ALLOWED = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(pid[5:]):
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        return _Storage(str(key), dtype)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name.

    Args:
      path: written by `torch.save`, of a state dict or of a checkpoint that holds one
        under "state_dict"; what else a checkpoint holds is left out.

    Raises:
      UserError: it cannot be read, is damaged, holds no tensors by name, or names
        anything but tensors.
    """
    try:
        raw = path.read_bytes()
        read_layout = _zipped if raw[:2] == b"PK" else _streamed
        found, stored = read_layout(raw)
        if isinstance(found, dict):
            found = found.get("state_dict", found)
        if not isinstance(found, dict) or not found:
            raise ValueError("it holds no tensors by name")
        for name, tensor in found.items():
            if not isinstance(name, str) or not isinstance(tensor, _Tensor):
                raise ValueError(f"its {name!r} is no tensor")
        return {name: _array(tensor, stored) for name, tensor in found.items()}
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    # What a damaged pickle raises is up to its bytes.
    except Exception as e:
        raise errors.UserError(f"{path} is no PyTorch file of tensors: {e}") from e


def entries(path: pathlib.Path) -> base.Entries:
    """Returns the tensors of a state dict by name, as readers give them."""
    return base.held(read(path))


def _zipped(raw: bytes) -> tuple[Any, Any]:
    """Returns the object and (key -> bytes) of a zip archive."""
    archive = zipfile.ZipFile(io.BytesIO(raw))
    (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
    folder = name.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        if archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it is not little-endian")
    found = _Unpickler(io.BytesIO(archive.read(name)), encoding="latin1").load()
    return found, lambda storage: archive.read(f"{folder}data/{storage.key}")


def _streamed(raw: bytes) -> tuple[Any, Any]:
    """Returns the object and (key -> bytes) of the older layout."""
    stream = io.BytesIO(raw)
    magic, _, system, found, keys = (
        _Unpickler(stream, encoding="latin1").load() for _ in range(5)
    )
    if magic != _MAGIC or not system["little_endian"]:
        raise ValueError("it does not begin as one")
    at, start = {}, stream.tell()
    sizes = _sizes(found)
    for key in keys:  # each a count, then the elements
        (count,) = struct.unpack_from("<q", raw, start)
        at[key] = start + 8, start + 8 + count * sizes[key]
        start = at[key][1]
    return found, lambda storage: raw[slice(*at[storage.key])]


def _sizes(found: Any) -> dict[str, int]:
    """Returns the bytes of an element of each storage."""
    if isinstance(found, _Tensor):
        return {found.storage.key: found.storage.dtype.itemsize}
    if isinstance(found, dict):
        found = found.values()
    elif not isinstance(found, list | tuple):
        return {}
    return {key: size for x in found for key, size in _sizes(x).items()}


def _array(tensor: _Tensor, stored: Any) -> np.ndarray:
    (key, dtype), offset, shape, strides = tensor
    flat = np.frombuffer(stored(tensor.storage), dtype)
    if min((offset, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise ValueError(f"storage {key} has a tensor of an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 in shape:
        return np.zeros(shape, dtype)
    if max(last + 1, math.prod(shape)) > flat.size:
        raise ValueError(f"storage {key} ends before its tensor does")
    steps = tuple(s * dtype.itemsize for s in strides)
    return np.array(np.lib.stride_tricks.as_strided(flat[offset:], shape, steps))
