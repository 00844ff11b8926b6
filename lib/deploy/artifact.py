"""The packed artifact: a frozen tree in one small file, there and back bit for bit.

The format is written down in `reader.py`, which reads it without JAX. It has no pickle
in it, a checksum for each part, and equal arrays once only. Equal trees give equal
bytes: keys are sorted, and nothing depends on the time or place of writing.
"""

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lib import errors, files, representations
from lib.deploy import packing, reader

Path = str | os.PathLike[str]
Frozen = representations.Frozen

_BFLOAT16 = np.dtype(jnp.bfloat16)
_NAMES = {dtype: name for name, dtype in reader.DTYPES.items()}
_KINDS = {
    "Dense": representations.Dense,
    "Quantized": representations.Quantized,
    "Codebook": representations.Codebook,
    "Sparse": representations.Sparse,
    "LowRank": representations.LowRank,
}


class _Packer:
    """Turns representations into the header's lists and collects their sections."""

    def __init__(self):
        self.sections: dict[bytes, int] = {}  # content -> index

    def section(self, content: bytes) -> int:
        return self.sections.setdefault(content, len(self.sections))

    def array(
        self, x: Any, *, mask: np.ndarray | None = None, bits: int | None = None
    ) -> list[Any]:
        x = np.asarray(x)
        if x.dtype == _BFLOAT16:
            x = x.view(reader.BFLOAT16)
        name = _NAMES.get(x.dtype.newbyteorder("<"))
        if name is None:
            valid = ", ".join(n.name for n in _NAMES if n != reader.BFLOAT16)
            raise errors.UserError(
                f"dtype {x.dtype} cannot be packed; valid: {valid}, bfloat16"
            )
        spec = [name, list(x.shape)]
        if mask is not None:
            if x.shape != mask.shape:
                raise ValueError(f"mask {mask.shape} over a weight of shape {x.shape}")
            spec, x = [name, None], x[mask]
        if bits is None and name != "b1":
            return [self.section(x.astype(reader.DTYPES[name]).tobytes()), *spec]
        if name == "b1":
            return [self.section(packing.pack_bits(x, 1)), *spec]
        if x.dtype.kind == "i":
            x = x.astype(np.int64) + (1 << bits >> 1)
        return [self.section(packing.pack_bits(x, bits)), *spec, bits]

    def mask(self, mask: np.ndarray) -> list[Any]:
        content, k = packing.pack_mask(mask)
        spec = [self.section(content), list(mask.shape)]
        return spec if k is None else [*spec, int(np.count_nonzero(mask)), k]

    def node(
        self, rep: representations.Representation, mask: np.ndarray | None = None
    ) -> list[Any]:
        match rep:
            case representations.Dense(values):
                return ["d", self.array(values, mask=mask)]
            case representations.Quantized(codes, scale, zero, bits, group):
                codes = self.array(codes, mask=mask, bits=bits)
                if zero is not None:
                    zero = np.asarray(zero)
                    fits = zero.dtype.kind == "u" and np.all(zero < 1 << bits)
                    zero = self.array(zero, bits=bits if fits else None)
                return ["q", group, codes, self.array(scale), zero]
            case representations.Codebook(indices, centroids):
                bits = max(len(centroids) - 1, 0).bit_length()
                indices = self.array(indices, mask=mask, bits=bits)
                return ["c", indices, self.array(centroids)]
            case representations.Sparse(kept, below):
                kept = np.asarray(kept)
                if kept.dtype != bool:
                    raise ValueError(f"a mask is bool, not {kept.dtype}")
                return ["s", self.mask(kept), self.node(below, kept)]
            case representations.LowRank(u, v):
                return ["l", self.node(u), self.node(v)]
        raise TypeError(f"not a representation: {type(rep).__name__}")

    def tree(self, tree: Any, path: str = "") -> Any:
        if isinstance(tree, Mapping):
            for key in tree:
                if not isinstance(key, str) or "/" in key:
                    raise TypeError(f"tree keys are strings without '/', got {key!r}")
            return {
                key: self.tree(tree[key], f"{path}/{key}" if path else key)
                for key in sorted(tree)
            }
        if isinstance(tree, (tuple, list)):
            raise TypeError(f"{path}: a {type(tree).__name__} is no weight")
        try:
            return self.node(representations.of(tree))
        except ValueError as e:
            raise type(e)(f"{path}: {e}") from e


def pack(frozen: Frozen, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Returns the artifact's bytes; arguments and errors as `save`."""
    if not isinstance(frozen, Mapping):
        raise TypeError(f"a frozen tree is a dict, got {type(frozen).__name__}")
    packer = _Packer()
    tree = packer.tree(frozen)
    lengths = [len(content) for content in packer.sections]
    try:
        header = json.dumps(
            [tree, lengths, dict(metadata or {})],
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError) as e:
        raise errors.UserError(f"metadata is what JSON can hold: {e}") from e
    if len(header) >= reader.HEADER_LIMIT:
        raise errors.UserError(
            f"metadata and names take {len(header)} bytes, at most"
            f" {reader.HEADER_LIMIT} fit"
        )
    header = min(header, zlib.compress(header, 9), key=len)
    prefix = reader.PREFIX.pack(reader.MAGIC, reader.VERSION, len(header))
    checksum = reader.CHECKSUM.pack(zlib.crc32(header, zlib.crc32(prefix)))
    parts = [prefix, checksum, header]
    for content in packer.sections:
        parts += [content, reader.CHECKSUM.pack(zlib.crc32(content))]
    return b"".join(parts)


def save(path: Path, frozen: Frozen, metadata: Mapping[str, Any] | None = None) -> int:
    """Writes `frozen` to the file at `path`, whole or not at all.

    Args:
      path: missing directories are made; a file of that name is replaced in one step.
      frozen: nested dict of representations; arrays count as `Dense`. What a mask
        removes is not stored and comes back as 0.
      metadata: nested dict of what JSON holds (tuples come back as lists).

    Returns:
      The length of the file in bytes.

    Raises:
      UserError: the file cannot be written, or holds a dtype or metadata that has no
        place in it. What was at `path` before is untouched.
      ValueError: a representation breaks its own invariant.
    """
    content = pack(frozen, metadata)
    # The reader's checks are the only ones: what it would refuse is not written.
    reader.parse(content, f"cannot pack {os.fspath(path)}")
    return files.write_bytes(path, content)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return reader.read(path)
    except reader.ArtifactError as e:
        raise errors.UserError(f"artifact {e}") from e
    except OSError as e:
        raise errors.UserError(
            f"cannot read artifact {os.fspath(path)}: {e.strerror or e}"
        ) from e


def _represent(node: Any) -> Any:
    """Returns the representation, array or setting that `reader` read."""
    if isinstance(node, reader.Node):
        fields = {name: _represent(x) for name, x in node.fields.items()}
        return _KINDS[node.kind](**fields)
    if isinstance(node, dict):
        return {key: _represent(child) for key, child in node.items()}
    if isinstance(node, np.ndarray) and node.dtype == reader.BFLOAT16:
        return node.view(_BFLOAT16)
    return node


def load(path: Path) -> Frozen:
    """Returns the nested dict of representations in the file, as NumPy arrays.

    Raises:
      UserError: the file is missing, truncated, altered, no artifact, or newer than
        this program.
    """
    return _represent(_read(path)[0])


def metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata in the file; errors as `load`."""
    return _read(path)[1]


def materialize(frozen: Frozen) -> Any:
    """Returns the nested dict of dense weights; empty dicts are left out."""
    return representations.thaw(frozen)
