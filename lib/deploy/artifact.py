"""The packed artifact: a frozen tree in one small file, there and back bit for bit.

The format is written down in `reader.py`, which reads it without JAX. It has no pickle
in it, a checksum over all of it, and equal arrays once only. Equal trees give equal
bytes: keys are sorted, and nothing depends on the time or place of writing.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lib import errors, files, formats, representations
from lib.deploy import coder, masks, packing, reader

Path = str | os.PathLike[str]
Frozen = representations.Frozen

_BFLOAT16 = np.dtype(jnp.bfloat16)
_NAMES = {dtype: name for name, dtype in reader.DTYPES.items()}
_KINDS = {
    "Dense": representations.Dense,
    "Quantized": representations.Quantized,
    "Levels": representations.Levels,
    "Codebook": representations.Codebook,
    "Sparse": representations.Sparse,
    "LowRank": representations.LowRank,
    "Tucker": representations.Tucker,
    "CP": representations.CP,
    "Sum": representations.Sum,
    "Tied": representations.Tied,
}


class _Packer:
    """Turns representations into the header's lists and collects their arrays."""

    def __init__(self):
        self.body: list[bytes] = []
        self.known: dict[tuple[str, bytes], int] = {}  # what is stored -> which array

    def store(self, spec: list[Any], how: Any, content: bytes) -> list[Any] | int:
        """Appends an array; returns what the header calls it."""
        spec = spec if how is None else [*spec, how]
        index = self.known.setdefault((str(spec), content), len(self.known))
        if index < len(self.body):
            return index
        self.body.append(content)
        return spec

    def array(
        self, x: Any, *, mask: np.ndarray | None = None, bits: int | None = None
    ) -> list[Any] | int:
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
        if name == "b1":
            how, content = coder.smallest(masks.candidates(x))
            return self.store(spec, None if how == "b" else how, content)
        x = x.astype(reader.DTYPES[name])
        return self.store(spec, *coder.smallest(_candidates(x, bits)))

    def mask(self, mask: np.ndarray) -> list[Any] | int:
        if mask.dtype != bool:
            raise ValueError(f"a mask is bool, not {mask.dtype}")
        return self.array(mask)

    def node(
        self, rep: representations.Representation, mask: np.ndarray | None = None
    ) -> list[Any]:
        match rep:
            case representations.Dense(values):
                return ["d", self.array(values, mask=mask)]
            case representations.Quantized(codes, scale, zero, bits, group):
                codes = self.array(codes, mask=mask, bits=bits)
                scale = self.array(scale)
                if zero is not None:
                    zero = np.asarray(zero)
                    fits = zero.dtype.kind == "u" and np.all(zero < 1 << bits)
                    zero = self.array(zero, bits=bits if fits else None)
                return ["q", bits, group, codes, scale, zero]
            case representations.Levels(codes, scale, name, group):
                levels = self.array(formats.FORMATS[name])
                codes = self.array(codes, mask=mask, bits=formats.bits(name))
                return ["f", name, group, levels, codes, self.array(scale)]
            case representations.Codebook(indices, centroids, shape):
                count = representations.shape_of(representations.of(centroids))[0]
                bits = max(count - 1, 0).bit_length()
                if shape and mask is not None and np.shape(indices) != mask.shape:
                    mask = None  # one index stands for several weights
                indices = self.array(indices, mask=mask, bits=bits)
                below = isinstance(centroids, representations.Representation)
                centroids = (self.node if below else self.array)(centroids)
                return ["c", indices, centroids, *([list(shape)] if shape else [])]
            case representations.Sparse(kept, below):
                kept = np.asarray(kept)
                return ["s", self.mask(kept), self.node(below, kept)]
            case representations.Tied(path):
                return ["t", path]
        for letter, (kind, names) in reader.KINDS.items():
            if names and isinstance(rep, _KINDS[kind]):
                return [letter, *(self.node(getattr(rep, name)) for name in names)]
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


def _candidates(x: np.ndarray, bits: int | None) -> list[coder.Candidate]:
    """Returns the ways to store an array that is not of booleans.

    Args:
      x: little-endian.
      bits: that whole numbers have to fit.
    """
    found = [coder.Candidate(x.nbytes, None, x.tobytes)]
    if bits is not None and bits <= min(16, 8 * x.dtype.itemsize):
        offset = 1 << bits >> 1 if x.dtype.kind == "i" else 0
        packed = packing.pack_bits(x.astype(np.int64) + offset, bits)
        found = [coder.Candidate(len(packed), bits, lambda: packed)]
    if not x.size or x.dtype.itemsize > 4:
        return found
    # A letter in the header costs what coding a few numbers saves.
    u = coder.to_unsigned(x.ravel())
    whole = coder.numbers(u, 8 * x.dtype.itemsize)
    return [*found, whole, *_without_the_common(u, x)]


def _without_the_common(u: np.ndarray, x: np.ndarray) -> list[coder.Candidate]:
    """Returns the way "m", if one number is most of `u` or zero is a good part."""
    middle = np.partition(u, u.size // 2)[u.size // 2]  # any majority is there
    others = (u != middle).reshape(x.shape)
    kept = int(np.count_nonzero(others))
    if kept == 0 or kept > 0.7 * u.size:
        return []
    ways = masks.candidates(others)
    rest = coder.numbers(u[others.ravel()], 8 * x.dtype.itemsize)
    head = coder.varint(int(middle))

    def make() -> bytes:
        how, content = coder.smallest(ways)
        return b"".join([head, how.encode(), content, rest.make()])

    estimate = len(head) + 1 + min(way.estimate for way in ways) + rest.estimate
    return [coder.Candidate(estimate, "m", make)]


def pack(frozen: Frozen, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Returns the artifact's bytes; arguments and errors as `save`."""
    if not isinstance(frozen, Mapping):
        raise TypeError(f"a frozen tree is a dict, got {type(frozen).__name__}")
    packer = _Packer()
    tree = packer.tree(frozen)
    try:
        header = json.dumps(
            [tree, dict(metadata or {})],
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
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=reader.DICTIONARY)
    header = deflater.compress(header) + deflater.flush()
    rest = b"".join([coder.varint(len(header)), header, *packer.body])
    prefix = reader.PREFIX.pack(reader.MAGIC, reader.VERSION)
    checksum = zlib.crc32(rest, zlib.crc32(prefix))
    return b"".join([prefix, reader.CHECKSUM.pack(checksum), rest])


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


def _told(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
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
        if node.kind == "Levels":
            _check_format(fields["format"], fields.pop("levels"))
        return _KINDS[node.kind](**fields)
    if isinstance(node, dict):
        return {key: _represent(child) for key, child in node.items()}
    if isinstance(node, np.ndarray) and node.dtype == reader.BFLOAT16:
        return node.view(_BFLOAT16)
    return node


def _check_format(name: str, levels: np.ndarray) -> None:
    """Raises a `UserError` unless the file's table of levels is ours of that name."""
    ours = errors.lookup(formats.FORMATS, name, "format in an artifact")
    if levels.tobytes() != ours.tobytes():
        raise errors.UserError(
            f"artifact: its format {name!r} of {levels.size} levels is not the one of "
            "that name here; reader.py reads it"
        )


def load(path: Path) -> Frozen:
    """Returns the nested dict of representations in the file, as NumPy arrays.

    Raises:
      UserError: the file is missing, truncated, altered, no artifact, or newer than
        this program, as by a format that is not one of ours.
    """
    return _represent(_told(reader.read, path)[0])


def metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata in the file; errors as `load`."""
    return _told(reader.read, path)[1]


def listing(path: Path) -> list[reader.Row]:
    """Returns a row for each weight in the file; errors as `load`."""
    return _told(reader.listing, path)


def materialize(frozen: Frozen) -> Any:
    """Returns the nested dict of dense weights; empty dicts are left out."""
    return representations.thaw(frozen)
