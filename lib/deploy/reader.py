"""Reads a packed artifact with NumPy and the standard library alone.

This file imports nothing of Pare: copy it next to the artifact on any machine.

    python reader.py FILE                  lists what is inside
    reader.load(path)                      {path: dense weight}
    nodes, metadata = reader.read(path)    the weights as they are stored

The file; every integer is little-endian, every array in C order:

    magic       4 bytes   "PARE"
    version     uint16
    length      uint32    bytes of the header as stored
    checksum    uint32    CRC-32 of the ten bytes above and of the header
    header      JSON [tree, lengths, metadata]; zlib-compressed where that is smaller
    sections    for each of `lengths` that many bytes, then their CRC-32 (uint32)

`tree` is a nested dict; its leaves are lists that start with a letter:

    ["d", array]                                 Dense
    ["q", group, codes, scale, zero or null]     Quantized
    ["c", indices, centroids]                    Codebook
    ["s", mask, leaf]                            Sparse
    ["l", leaf, leaf]                            LowRank

    array   [section, dtype, shape]              raw
            [section, dtype, shape, bits]        whole numbers of `bits` bits each, the
                                                 first number and lowest bit first;
                                                 signed ones plus 2**(bits - 1)
    mask    [section, shape]                     a bitmap, lowest bit first
            [section, shape, kept, k]            Rice code of the gaps between kept
                                                 weights: the low k bits of each gap,
                                                 then from a new byte on the rest in
                                                 unary (that many 0 bits and a 1)

Booleans take one bit each. Directly below a mask the array of the weight's shape has
a null for its shape, and holds the kept entries only. Two arrays may name one section.
"""

import json
import math
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"PARE"
VERSION = 1
PREFIX = struct.Struct("<4sHI")  # magic, version, header length
CHECKSUM = struct.Struct("<I")
HEADER_LIMIT = 2**26  # bytes of JSON
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: its bits, under its name
DTYPES = {
    name: np.dtype(f"<{name}") for name in "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split()
} | {"bf2": BFLOAT16}
_CHUNK = 2**16  # numbers unpacked at a time; a multiple of 8, so chunks start on bytes


class ArtifactError(ValueError):
    """A file that is no artifact, truncated, altered or of a newer version."""


class Node(NamedTuple):
    """A stored weight.

    Attributes:
      kind: Dense, Quantized, Codebook, Sparse or LowRank.
      fields: name -> array, whole number, None or Node below, named and shaped as in
        `lib/representations.py`. Arrays of dtype `BFLOAT16` hold the bits.
    """

    kind: str
    fields: dict[str, Any]


class Row(NamedTuple):
    """One line of the listing; `nbytes` counts a shared section where it is first."""

    path: str
    representation: str
    shape: tuple[int, ...]
    nbytes: int


def unpack_bits(stream: bytes | memoryview, count: int, bits: int) -> np.ndarray:
    """Returns `count` unsigned numbers of `bits` bits (0 to 32) each, `[count]`."""
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    data = np.frombuffer(stream, np.uint8)
    out = np.zeros(count, dtype)
    for start in range(0, count, _CHUNK):
        part = out[start : start + _CHUNK]
        total = len(part) * bits
        first = start * bits // 8
        chunk = data[first : first + (total + 7) // 8]
        planes = np.unpackbits(chunk, count=total, bitorder="little")
        planes = planes.reshape(len(part), bits)
        for i in range(bits):
            part |= planes[:, i].astype(dtype) << dtype(i)
    return out


def unpack_runs(stream: memoryview, size: int, kept: int, k: int) -> np.ndarray:
    """Returns the flat mask `[size]` whose gaps `stream` holds in Rice's code."""
    split = (kept * k + 7) // 8
    if not (0 <= kept <= size and 0 <= k <= 32 and split <= len(stream)):
        raise ArtifactError("a mask's runs do not fit its section")
    low = unpack_bits(stream[:split], kept, k)
    ends = np.flatnonzero(
        np.unpackbits(np.frombuffer(stream[split:], np.uint8), bitorder="little")
    )
    mask = np.zeros(size, bool)
    if len(ends) != kept:
        raise ArtifactError(f"a mask keeps {len(ends)} weights, not {kept}")
    if kept:
        # Python's whole numbers: what follows cannot overflow if this holds.
        if (int(ends[-1]) + 1 - kept << k) + int(low.sum(dtype=np.int64)) > size - kept:
            raise ArtifactError("a mask's runs are longer than the weight")
        high = np.diff(ends, prepend=-1) - 1
        mask[np.cumsum((high << k) + low + 1) - 1] = True
    return mask


class _Decoder:
    """Turns the header's lists into nodes, with a limit on what they may unfold to."""

    def __init__(self, sections: list[memoryview], allowed: int):
        self.sections = sections
        self.allowed = allowed  # entries that may still be unfolded
        self.first_use = [True] * len(sections)
        self.nbytes = 0  # of the sections used so far

    def section(self, index: int) -> memoryview:
        if not 0 <= index < len(self.sections):
            raise ArtifactError(f"there is no section {index}")
        if self.first_use[index]:
            self.first_use[index] = False
            self.nbytes += len(self.sections[index]) + CHECKSUM.size
        return self.sections[index]

    def shape(self, shape: Any) -> tuple[int, ...]:
        """Returns `shape` as a tuple and takes its size off what is allowed."""
        whole = isinstance(shape, list) and all(type(n) is int for n in shape)
        if not whole or len(shape) > 32 or not all(0 <= n < 2**48 for n in shape):
            raise ArtifactError(f"{str(shape)[:40]!r} is no shape")
        self.spend(math.prod(shape))
        return tuple(shape)

    def spend(self, count: int) -> None:
        self.allowed -= count
        if self.allowed < 0:
            raise ArtifactError("the header unfolds to far more than the file can hold")

    def array(self, spec: Any, mask: np.ndarray | None = None) -> np.ndarray:
        match spec:
            case [int(index), str(name), shape]:
                bits = 1 if name == "b1" else None
            case [int(index), str(name), shape, int(bits)]:
                pass
            case _:
                raise ArtifactError("an array is not described as one")
        if name not in DTYPES:
            raise ArtifactError(f"unknown dtype {name[:20]!r}")
        dtype, stream = DTYPES[name], self.section(index)
        if shape is None and mask is not None:
            shape, count = mask.shape, int(np.count_nonzero(mask))
            self.spend(mask.size)
        else:
            shape, mask = self.shape(shape), None
            count = math.prod(shape)
        if bits is None:
            self.check(stream, count * dtype.itemsize)
            values = np.frombuffer(stream, dtype).copy()
        else:
            if dtype.kind not in "biu" or not 0 <= bits <= min(16, 8 * dtype.itemsize):
                raise ArtifactError(f"{name} does not take {bits} bits")
            self.check(stream, (count * bits + 7) // 8)
            values = unpack_bits(stream, count, bits)
            if dtype.kind == "i":
                values = values.astype(np.int32) - (1 << bits >> 1)
            values = values.astype(dtype)
        if mask is None:
            return values.reshape(shape)
        whole = np.zeros(shape, dtype)
        whole[mask] = values
        return whole

    def check(self, stream: memoryview, expected: int) -> None:
        if len(stream) != expected:
            raise ArtifactError(
                f"a section has {len(stream)} bytes where its array takes {expected}"
            )

    def mask(self, spec: Any) -> np.ndarray:
        match spec:
            case [int(index), shape]:
                stream, shape = self.section(index), self.shape(shape)
                self.check(stream, (math.prod(shape) + 7) // 8)
                flat = unpack_bits(stream, math.prod(shape), 1).astype(bool)
            case [int(index), shape, int(kept), int(k)]:
                stream, shape = self.section(index), self.shape(shape)
                flat = unpack_runs(stream, math.prod(shape), kept, k)
            case _:
                raise ArtifactError("a mask is not described as one")
        return flat.reshape(shape)

    def node(self, spec: Any, mask: np.ndarray | None = None) -> Node:
        match spec:
            case ["d", values]:
                return Node("Dense", {"values": self.array(values, mask)})
            case ["q", int(group), [_, _, _, int(bits)] as codes, scale, zero]:
                fields = {
                    "codes": self.array(codes, mask),
                    "scale": self.array(scale),
                    "zero_point": None if zero is None else self.array(zero),
                    "bits": bits,
                    "group": group,
                }
                _check_grid(**fields)
                return Node("Quantized", fields)
            case ["c", indices, centroids]:
                indices, centroids = self.array(indices, mask), self.array(centroids)
                if indices.dtype.kind != "u" or centroids.ndim != 1:
                    raise ArtifactError("a codebook is not a list of values")
                if indices.size and int(indices.max()) >= len(centroids):
                    raise ArtifactError("an index lies outside its codebook")
                return Node("Codebook", {"indices": indices, "centroids": centroids})
            case ["s", kept, below]:
                kept = self.mask(kept)
                node = self.node(below, kept)
                if shape_of(node) != kept.shape:
                    raise ArtifactError("a mask and its weight differ in shape")
                return Node("Sparse", {"mask": kept, "values": node})
            case ["l", u, v]:
                node = Node("LowRank", {"u": self.node(u), "v": self.node(v)})
                left, right = (shape_of(x) for x in node.fields.values())
                if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
                    raise ArtifactError(f"factors {left} and {right} do not multiply")
                self.spend(math.prod(shape_of(node)))
                return node
        raise ArtifactError("unknown representation")


def _grid_view(shape: tuple[int, ...], group: int) -> tuple[int, ...]:
    """Returns the shape that scales broadcast against: grouped, or `shape` itself."""
    if not group:
        return shape
    return (math.prod(shape[:-1]) // group, group, shape[-1])


def _check_grid(codes, scale, zero_point, bits, group) -> None:
    del bits
    if codes.dtype.kind not in "iu" or (scale.dtype.kind != "f" and not _is_bf(scale)):
        raise ArtifactError("codes are whole numbers and scales are floats")
    if zero_point is not None and zero_point.dtype.kind not in "iu":
        raise ArtifactError("zero points are whole numbers")
    if group and not (
        group > 0 and codes.ndim and math.prod(codes.shape[:-1]) % group == 0
    ):
        raise ArtifactError(f"groups of {group} do not divide {codes.shape}")
    view = _grid_view(codes.shape, group)
    for name, x in (("scale", scale), ("zero point", zero_point)):
        if x is None:
            continue
        tail = view[len(view) - x.ndim :]
        fits = x.ndim <= len(view) and all(
            n in (1, m) for n, m in zip(x.shape, tail, strict=True)
        )
        if not fits:
            raise ArtifactError(f"{name} {x.shape} does not broadcast against {view}")


def shape_of(node: Node) -> tuple[int, ...]:
    """Returns the shape of the dense weight that `node` stands for."""
    fields = node.fields
    if node.kind == "LowRank":
        return (shape_of(fields["u"])[0], shape_of(fields["v"])[1])
    first = {
        "Dense": "values",
        "Quantized": "codes",
        "Codebook": "indices",
        "Sparse": "mask",
    }
    return fields[first[node.kind]].shape


def _is_bf(x: np.ndarray) -> bool:
    return x.dtype == BFLOAT16


def _widen(x: np.ndarray) -> np.ndarray:
    """Returns bfloat16 as float32, exactly; anything else as it is."""
    if not _is_bf(x):
        return x
    return (x["bfloat16"].astype(np.uint32) << np.uint32(16)).view(np.float32)


def _narrow(x: np.ndarray) -> np.ndarray:
    """Returns float32 rounded to bfloat16, half to even."""
    bits = np.ascontiguousarray(x, np.float32).reshape(x.shape).view(np.uint32)
    high = bits >> np.uint32(16)
    rounded = (bits + (high & np.uint32(1)) + np.uint32(0x7FFF)) >> np.uint32(16)
    bits = np.where(np.isnan(x), high | np.uint32(0x40), rounded)
    return bits.astype(np.uint16).view(BFLOAT16)


def _dense(node: Node) -> np.ndarray:
    """Returns the weight of `node`; bfloat16 stays `BFLOAT16`."""
    match node:
        case Node("Dense", {"values": values}):
            return values
        case Node("Quantized", {"codes": codes, "scale": scale, "group": group} as f):
            whole = codes.reshape(_grid_view(codes.shape, group)).astype(np.int32)
            if f["zero_point"] is not None:
                whole = whole - f["zero_point"].astype(np.int32)
            wide = _widen(scale)
            weight = (whole.astype(wide.dtype) * wide).reshape(codes.shape)
            return _narrow(weight) if _is_bf(scale) else weight
        case Node("Codebook", {"indices": indices, "centroids": centroids}):
            return np.asarray(centroids[indices])
        case Node("Sparse", {"mask": mask, "values": below}):
            below = _dense(below)
            weight = np.zeros(mask.shape, below.dtype)
            weight[mask] = below[mask]
            return weight
        case Node("LowRank", {"u": u, "v": v}):
            u, v = _dense(u), _dense(v)
            wide = [_widen(x) for x in (u, v)]
            dtype = np.result_type(*wide)
            # NumPy sums float16 in float16; accelerators sum it in float32.
            wide = [x.astype(np.result_type(x, np.float32)) for x in wide]
            weight = (wide[0] @ wide[1]).astype(dtype)
            return _narrow(weight) if _is_bf(u) and _is_bf(v) else weight
    raise ArtifactError(f"unknown representation {node.kind}")


def dense(node: Node) -> np.ndarray:
    """Returns the dense weight that `node` stands for; bfloat16 becomes float32.

    To the last bit what JAX computes, but for products of factors (summed in another
    order) and results below the normal range (which XLA flushes to 0 on CPUs).
    """
    with np.errstate(all="ignore"):
        return np.asarray(_widen(_dense(node)))


def _verify(blob: bytes) -> tuple[Any, Any, list[memoryview]]:
    """Returns the header's tree, its metadata and the sections; all checksums hold."""
    start = PREFIX.size + CHECKSUM.size
    if blob[: len(MAGIC)] != MAGIC[: len(blob)]:
        raise ArtifactError("this is no Pare artifact")
    if len(blob) < start:
        raise ArtifactError(f"truncated: {len(blob)} bytes of at least {start}")
    _, version, length = PREFIX.unpack_from(blob)
    if version > VERSION:
        raise ArtifactError(
            f"version {version} is newer than version {VERSION}, the newest that this"
            " program reads"
        )
    if version != VERSION:
        raise ArtifactError(f"version {version} is not one that ever was")
    if len(blob) < start + length:
        raise ArtifactError(
            f"truncated: {len(blob)} bytes, the header alone ends at {start + length}"
        )
    view = memoryview(blob)
    header = view[start : start + length]
    checksum = zlib.crc32(header, zlib.crc32(view[: PREFIX.size]))
    if checksum != CHECKSUM.unpack_from(blob, PREFIX.size)[0]:
        raise ArtifactError("altered: the header's checksum does not hold")
    match json.loads(_inflate(header)):
        case [dict(tree), list(lengths), dict(metadata)]:
            pass
        case _:
            raise ArtifactError("the header is not [tree, lengths, metadata]")
    if not all(type(n) is int and n >= 0 for n in lengths):
        raise ArtifactError("a section's length is no whole number")
    end = start + length + sum(lengths) + CHECKSUM.size * len(lengths)
    if len(blob) != end:
        what = "truncated" if len(blob) < end else "altered"
        raise ArtifactError(f"{what}: {len(blob)} bytes where the header says {end}")
    sections, start = [], start + length
    for i, n in enumerate(lengths):
        sections.append(view[start : start + n])
        start += n
        if zlib.crc32(sections[-1]) != CHECKSUM.unpack_from(blob, start)[0]:
            raise ArtifactError(
                f"altered: the checksum of section {i} of {len(lengths)} does not hold"
            )
        start += CHECKSUM.size
    return tree, metadata, sections


def _inflate(header: memoryview) -> bytes:
    if header[:1] == b"[":
        return bytes(header)
    inflater = zlib.decompressobj()
    plain = inflater.decompress(header, HEADER_LIMIT)
    if not inflater.eof or inflater.unused_data:
        raise ArtifactError("the header is longer than any header may be")
    return plain


def parse(blob: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any], list[Row]]:
    """Returns the nodes, metadata and listing of an artifact's bytes.

    Args:
      blob: the whole file.
      name: what errors call it.

    Raises:
      ArtifactError: one line that says what is wrong with it.
    """
    rows, where = [], name
    try:
        tree, metadata, sections = _verify(blob)
        # What is stored in no bits (a weight pruned whole) still costs memory to
        # unfold. No real file comes near this; a forged one must not go beyond it.
        decoder = _Decoder(sections, allowed=2**24 + 2**16 * len(blob))

        def build(spec: Any, path: str) -> Any:
            nonlocal where
            if isinstance(spec, dict):
                return {
                    key: build(child, f"{path}/{key}" if path else key)
                    for key, child in spec.items()
                }
            where = f"{name}: {path}"
            before = decoder.nbytes
            node = decoder.node(spec)
            nbytes = decoder.nbytes - before
            rows.append(Row(path, describe(node), shape_of(node), nbytes))
            return node

        return build(tree, ""), metadata, rows
    except ArtifactError as e:
        raise ArtifactError(f"{where}: {e}") from e
    except (ValueError, RecursionError, MemoryError, zlib.error) as e:
        # The checksum held, so this is a header that no writer of ours made.
        what = type(e).__name__
        raise ArtifactError(f"{where}: the header makes no sense ({what})") from e


def _bytes(path: Any) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def read(path: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the nested dict of `Node`s in the file at `path`, and its metadata.

    Raises:
      ArtifactError: the file is no artifact, truncated, altered or too new.
      OSError: it cannot be read at all.
    """
    return parse(_bytes(path), str(path))[:2]


def load(path: Any) -> dict[str, np.ndarray]:
    """Returns `{a/b/kernel: dense weight}`; errors as `read`."""
    return {name: dense(node) for name, node in _nodes(read(path)[0])}


def _nodes(tree: Any, prefix: str = "") -> Iterator[tuple[str, Node]]:
    if isinstance(tree, Node):
        yield prefix, tree
        return
    for key, child in tree.items():
        yield from _nodes(child, f"{prefix}/{key}" if prefix else key)


def listing(path: Any) -> list[Row]:
    """Returns a `Row` for each weight in the file; errors as `read`."""
    return parse(_bytes(path), str(path))[2]


def describe(node: Node) -> str:
    """Returns what `node` is in a few words, as `Sparse 10.0%, Quantized 4 bits`."""
    match node:
        case Node("Dense", {"values": values}):
            return f"Dense {'bfloat16' if _is_bf(values) else values.dtype.name}"
        case Node("Quantized", {"bits": bits}):
            return f"Quantized {bits} bits"
        case Node("Codebook", {"centroids": centroids}):
            return f"Codebook of {len(centroids)}"
        case Node("Sparse", {"mask": mask, "values": below}):
            share = np.count_nonzero(mask) / max(mask.size, 1)
            return f"Sparse {share:.1%}, {describe(below)}"
        case Node("LowRank", {"u": u, "v": v}):
            rank = shape_of(u)[1]
            return f"LowRank {rank} ({describe(u)}; {describe(v)})"
    raise ArtifactError(f"unknown representation {node.kind}")


def main(arguments: list[str]) -> int:
    """Prints a listing of the artifact named on the command line."""
    if len(arguments) != 1:
        print("usage: python reader.py FILE", file=sys.stderr)
        return 2
    try:
        blob = _bytes(arguments[0])
        _, metadata, rows = parse(blob, arguments[0])
    except (ArtifactError, OSError) as e:
        print(e, file=sys.stderr)
        return 2
    weights = sum(row.nbytes for row in rows)
    table = [("path", "representation", "shape", "bytes")]
    table += [(r[0], r[1], "x".join(map(str, r[2])) or "()", str(r[3])) for r in rows]
    table += [("(header)", "", "", str(len(blob) - weights))]
    table += [("(file)", "", "", str(len(blob)))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for path, what, shape, nbytes in table:
        print(
            f"{path:{widths[0]}}  {what:{widths[1]}}  {shape:{widths[2]}}"
            f"  {nbytes:>{widths[3]}}"
        )
    if metadata:
        print(f"metadata: {json.dumps(metadata, sort_keys=True)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
