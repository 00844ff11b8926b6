"""Reads a packed artifact with NumPy and the standard library alone.

This file imports nothing of Pare: copy it next to the artifact on any machine.

    python reader.py FILE                  lists what is inside
    reader.load(path)                      {path: dense weight}
    nodes, metadata = reader.read(path)    the weights as they are stored

The file, version 2; every integer is little-endian, every array in C order, and bits
are taken from the lowest of a byte up:

    magic       4 bytes   "PARE"
    version     uint16
    checksum    uint32    CRC-32 of the six bytes above and of all that follows
    length      varint    bytes of the header as stored; seven bits a byte, lowest
                          first, the eighth set in all but the last
    header      JSON [tree, metadata], deflated (RFC 1951) with `DICTIONARY`
    body        the arrays, one behind the other, in the order of the tree

`tree` is a nested dict; its leaves are lists that start with a letter, named by `KINDS`
("a weight" below is such a list):

    ["d", array]                                         Dense
    ["q", bits, group, codes, scale, zero or null]       Quantized
    ["f", name, group, levels, codes, scale]             Levels
    ["c", indices, centroids (array or weight)]          Codebook
    ["c", indices, centroids, shape]                     Codebook of vectors
    ["s", mask, weight]                                  Sparse
    ["l", u, v]  ["u", first, core, last]                LowRank, Tucker
    ["p", height, width, first, last]  ["+", a, b]       CP, Sum
    ["t", path]                                          Tied

An array is `[dtype, shape]` or `[dtype, shape, how]`; a number n instead is the nth
array so written, again: equal arrays are stored once. Directly below a mask the array
of the weight's shape has null for its shape, and holds the kept entries only. A mask is
an array of booleans. `how` the numbers are stored:

    none        as they are; booleans as a bitmap
    0 to 16     whole numbers of that many bits each; signed ones plus 2**(bits - 1)
    "n"         entropy-coded numbers, see `read_numbers`
    "m"         the most common number (varint), a letter and a mask of the others'
                places stored as that letter says, and the others as "n"
    "r"         booleans as Rice runs, see `unpack_runs`: varints of kept, k and the
                bytes of the unary part, then low and unary parts
    "g"         booleans as entropy-coded gaps, see `read_gaps`
    "4", "8"    booleans in patterns of 4 or 8 rows, as "n", lowest row lowest

Version 1 differs in its header and has no entropy coding, see `_open_1`.
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
VERSION = 2
PREFIX = struct.Struct("<4sH")  # magic, version
PREFIX_1 = struct.Struct("<4sHI")  # magic, version, header length
CHECKSUM = struct.Struct("<I")
HEADER_LIMIT = 2**26  # bytes of JSON
# What headers have in common: the letters above, names of layers, and the settings of
# `configs/common.py`, which a label repeats. Part of version 2: never to be changed.
DICTIONARY = (
    b'["p",["d",["f4",["u",["+",["l",["t","params/,"c",["u2",["f2",["bf2",["u4",["i4",'
    b'"embedding":"attention":{"query":"key":"value":"out":"mlp":"norm":"LayerNorm_0"'
    b'"name":"cnn","features":[32,64,128,256,512],"resnet","depth":20,"vit","heads":'
    b'"mixer","cifar10","fashion_mnist","mnist","data_dir":"","threads":8,'
    b'"kernel":["c",["u1",null,"n"],["f4",[16]]],"conv_0":{"bias":["d",["f4",[32]]],'
    b'"conv_1":{"bn_0":{"scale":["d",["f4",[64]]]},"batch_stats":{"mean":"var":'
    b'"Dense_0":{"kernel":["q",8,0,["i1",[3,3,16,32],"n"],["f4",[1,1,1,32],"n"],null]},'
    b'"kernel":["l",["d",["f4",["n"]],["s",["b1",["4"],"u1"null,"m"],"Conv_0":{"CNN":{'
    b'"rhs":["d",["f4",[2]]],"shared"}],"teacher"}],"student"}],"pruned"}],"packed"}]'
    b'[{"params":{"dense_0":{"bias":["d",["f4",[300],"n"]],"kernel":["s",["b1",[784,300],'
    b'"g"],["q",4,0,["i1",null,"n"],["f4",[1,300],"n"],null]]},"dense_1":{"bias":["d",['
    b'"f4",[100],"n"]],"kernel":["s",["b1",[300,100],"g"],["d",["f4",null,"n"]]]},'
    b'"logits":{"bias":["d",["f4",[10]]],"kernel":["s",["b1",[100,10],"g"],["q",4,0,'
    b'["i1",null,"n"],["f4",[1,10],"n"],null]]}},"ranges":{"MLP":{"dense_0":{"lhs":["d",'
    b'["f4",[2]]]},"dense_1":{"lhs":["d",["f4",[2]]]},"logits":{"lhs":["d",["f4",[2]]]}}}'
    b',"variables":{}},{"classes":10,"data":{"ahead":16,"data_dir":"","image":"image",'
    b'"label":"label","name":"digits","resident_bytes":268435456,"test":"test",'
    b'"threads":8,"validation_fraction":0.15},"model":{"dropout":0.0,"name":"mlp",'
    b'"widths":[300,100]},"normalisation":{"mean":[0.0],"std":[1.0]},'
    b'"rules":[[".",{"bits":8,"symmetric":false}]],"shape":[28,28,1],'
    b'"stage":"quantized"}]'
)
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: its bits, under its name
DTYPES = {
    name: np.dtype(f"<{name}") for name in "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split()
} | {"bf2": BFLOAT16}
# Letter -> kind and the names of its fields that are weights.
KINDS = {
    "d": ("Dense", ()),
    "q": ("Quantized", ()),
    "f": ("Levels", ()),
    "c": ("Codebook", ()),
    "s": ("Sparse", ("values",)),
    "l": ("LowRank", ("u", "v")),
    "u": ("Tucker", ("first", "core", "last")),
    "p": ("CP", ("height", "width", "first", "last")),
    "+": ("Sum", ("base", "extra")),
    "t": ("Tied", ()),
}
_CHUNK = 2**16  # numbers unpacked at a time; a multiple of 8, so chunks start on bytes


class ArtifactError(ValueError):
    """A file that is no artifact, truncated, altered or of a newer version."""


class Node(NamedTuple):
    """A stored weight.

    Attributes:
      kind: one of `KINDS`.
      fields: name -> array, whole number, tuple, text, None or Node below, named and
        shaped as in `lib/representations.py`. Arrays of dtype `BFLOAT16` hold the bits.
        `Levels` brings its table, float32 `levels`, along.
    """

    kind: str
    fields: dict[str, Any]


class Row(NamedTuple):
    """One line of the listing.

    Attributes:
      path: of the weight.
      representation: in words, see `describe`.
      shape: of the dense weight.
      nbytes: stored for it; an array that two weights share counts where it is first.
      sparsity: fraction of the stored weights that masks remove.
    """

    path: str
    representation: str
    shape: tuple[int, ...]
    nbytes: int
    sparsity: float


# --- Bits and bytes -------------------------------------------------------------


class Stream:
    """What is left of a body, and how much it may still unfold to.

    Attributes:
      data: the body.
      at: the byte that is read next.
      allowed: array entries that may still be unfolded.
    """

    def __init__(self, data: bytes | memoryview, allowed: int = 2**40):
        """Starts at the first byte of `data`."""
        self.data, self.at, self.allowed = memoryview(data), 0, allowed

    def take(self, count: int) -> memoryview:
        """Returns the next `count` bytes."""
        if count > len(self.data) - self.at:
            raise ArtifactError(
                f"an array takes {count} bytes where {len(self.data) - self.at} are"
                " left"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """Returns the next whole number of seven bits a byte."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ArtifactError("a number is too long")

    def spend(self, count: int) -> None:
        """Takes `count` entries off what is allowed."""
        self.allowed -= count
        if self.allowed < 0:
            raise ArtifactError("the header unfolds to far more than the file can hold")


class Bits:
    """Reads bits from a stream, the lowest of a byte first.

    Whatever is left of the last byte when the reading ends is filling.
    """

    def __init__(self, stream: Stream):
        """Starts at the next byte of `stream`."""
        self.stream, self.value, self.left = stream, 0, 0

    def read(self, count: int) -> int:
        """Returns the next `count` bits as a number, the first bit lowest."""
        while self.left < count:
            self.value |= self.stream.take(1)[0] << self.left
            self.left += 8
        found = self.value & ((1 << count) - 1)
        self.value, self.left = self.value >> count, self.left - count
        return found

    def golomb(self, order: int) -> int:
        """Returns a number in Golomb's exponential code.

        As many 0 bits as the number plus 2**order has bits above the lowest `order`,
        a 1, and all of those bits but the highest.
        """
        bits = order
        while not self.read(1):
            bits += 1
            if bits > 48:
                raise ArtifactError("a number is too long")
        return (1 << bits | self.read(bits)) - (1 << order)


def unpack_bits(stream: bytes | memoryview, count: int, bits: int) -> np.ndarray:
    """Returns `count` unsigned numbers of `bits` bits (0 to 32) each, `[count]`."""
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    data = np.frombuffer(stream, np.uint8)
    if bits == 8 * np.dtype(dtype).itemsize:
        return data.view(np.dtype(dtype).newbyteorder("<"))[:count].astype(dtype)
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
    """Returns the flat mask `[size]` whose gaps `stream` holds in Rice's code.

    The low k bits of the gap before each kept weight, then from a new byte on the rest
    in unary: that many 0 bits and a 1.
    """
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


# --- Entropy coding -------------------------------------------------------------

PRECISION = 14  # bits; the frequencies of a table add up to 2**14
ONE = 1 << PRECISION
START = 1 << 16  # where every state starts, and below which it takes 16 bits more
STEPS = 2**13  # most of one stream, so that a forged one cannot take long
FEW = 16  # lanes; from here on NumPy is faster than a loop of Python's
SYMBOLS = 2**12  # most of one table
GAPS = 128  # most of a table of gaps


def unravel(
    stream: Stream,
    count: int,
    lanes: int,
    tables: list[np.ndarray],
    which: np.ndarray | None = None,
) -> np.ndarray:
    """Returns `count` symbols of an asymmetric numeral system (Duda, 1311.2540).

    Symbol i is in the state of lane `i % lanes`. The states (uint32 each) come first,
    then words of 16 bits: after each round, every lane whose state fell below `START`
    takes one, in order of lanes. At the end all states are `START` again.

    Args:
      stream: read from where it stands.
      count: of symbols, at most `STEPS` a lane.
      lanes: of states.
      tables: the symbols' frequencies, each table adding up to `ONE`.
      which: table of each symbol, `[count]`; None where there is one.
    """
    steps = -(-count // lanes)
    if steps > STEPS:
        raise ArtifactError(f"a coded array takes {steps} steps")
    stream.spend(128 * steps)
    # For each of the ONE slots of each table: whose it is, of what size, which of them.
    frequencies = np.concatenate(tables).astype(np.int64)
    symbols = np.concatenate([np.arange(len(t), dtype=np.uint16) for t in tables])
    starts = np.cumsum(frequencies) - frequencies
    size = np.repeat(frequencies, frequencies).astype(np.uint32)
    place = np.arange(len(tables) * ONE) - np.repeat(starts, frequencies)
    place = place.astype(np.uint32)

    states = np.frombuffer(stream.take(4 * lanes), "<u4").astype(np.uint32)
    words = np.frombuffer(
        stream.data, "<u2", (len(stream.data) - stream.at) // 2, stream.at
    )
    base = np.zeros(count, np.uint32)
    if which is not None:
        base[:] = which
        base <<= np.uint32(PRECISION)
    follow = _follow_few if lanes < FEW else _follow_many
    slots, at = follow(states, words, base, size, place)
    if np.any(states != START):
        raise ArtifactError("a coded array does not end where it should")
    stream.take(2 * at)
    return np.repeat(symbols, frequencies)[slots]


def _follow_many(states, words, slots, size, place) -> tuple[np.ndarray, int]:
    """Returns the slot of each symbol and the words taken; `slots` holds the tables."""
    at, mask, shift = 0, np.uint32(ONE - 1), np.uint32(PRECISION)
    for first in range(0, len(slots), len(states)):
        x = states[: len(slots) - first]
        slot = slots[first : first + len(x)]
        slot |= x & mask
        x >>= shift
        x *= size[slot]
        x += place[slot]
        hungry = (x < START).nonzero()[0]
        if len(hungry):
            word = words[at : at + len(hungry)]
            at += len(hungry)
            if at > len(words):
                raise ArtifactError("a coded array ends too early")
            x[hungry] = x[hungry] << np.uint32(16) | word
    return slots, at


def _follow_few(states, words, slots, size, place) -> tuple[np.ndarray, int]:
    """Does the same one symbol at a time: faster where there are few lanes."""
    x, size, place = states.tolist(), size.tolist(), place.tolist()
    words = words[: len(slots)].tolist()  # a symbol takes one at most
    found, at, lane = slots.tolist(), 0, 0
    for i, base in enumerate(found):
        state = x[lane]
        slot = base | state & (ONE - 1)
        state = (state >> PRECISION) * size[slot] + place[slot]
        if state < START:
            if at == len(words):
                raise ArtifactError("a coded array ends too early")
            state = state << 16 | words[at]
            at += 1
        found[i], x[lane] = slot, state
        lane = lane + 1 if lane + 1 < len(x) else 0
    states[:] = x
    return np.array(found, np.uint32), at


def read_numbers(stream: Stream, count: int) -> np.ndarray:
    """Returns `count` entropy-coded numbers below 2**32, `[count]` uint32.

    A number is `((symbol + first) << low | rest) << zeros`. In bits: low (5), zeros
    (5), first (exponential Golomb of order 4), the number of symbols less 1 (order 2);
    if that is not 0, the table and the lanes' binary logarithm (4); the filling of the
    last byte; each rest in `low` bits; the symbols, see `unravel`. A table is the
    logarithm of its sum (4), an order (3), and in Golomb's code of that order the
    frequency of every symbol but the last, whose frequency is what lacks to the sum.
    """
    head = Bits(stream)
    low, zeros, first = head.read(5), head.read(5), head.golomb(4)
    size, lanes, table = head.golomb(2) + 1, 1, []
    if size > SYMBOLS or first + size << low + zeros > 2**32:
        raise ArtifactError("a table is too large")
    if size > 1:
        bits, order = head.read(4), head.read(3)
        table = [head.golomb(order) for _ in range(size - 1)]
        table.append((1 << bits) - sum(table))
        if bits > PRECISION or table[-1] < 0:
            raise ArtifactError("a table's frequencies do not add up")
        table = [frequency << PRECISION - bits for frequency in table]
        lanes = 1 << head.read(4)
    rest = unpack_bits(stream.take((count * low + 7) // 8), count, low)
    numbers = np.full(count, first, np.uint32)
    if size > 1:
        numbers += unravel(stream, count, lanes, [np.array(table)])
    numbers <<= np.uint32(low)
    numbers |= rest
    numbers <<= np.uint32(zeros)
    return numbers


def geometric(size: int, kept: int) -> tuple[np.ndarray, int]:
    """Returns the table of the gaps in a random mask, and how many bits stay outside.

    A gap is `(symbol << low) + rest`, but for the last symbol, which says that the next
    `symbol << low` weights are removed and the gap goes on. Gaps of a random mask have
    no memory (P(gap >= n) = (1 - kept / size)**n), so that this costs nothing. All in
    whole numbers, which are the same on every machine.

    Args:
      size: of the mask.
      kept: at least 1, at most half of `size`.
    """
    low = max((size // kept).bit_length() - 4, 0)
    longer = (size - kept << 64) // size  # probability that a gap goes on, times 2**64
    for _ in range(low):
        longer = longer * longer >> 64
    bounds, left = [0], longer
    while len(bounds) < GAPS:
        bound = ONE - (left >> 64 - PRECISION)
        if bound - bounds[-1] < 2 or bound == ONE:
            break
        bounds.append(bound)
        left = left * longer >> 64
    return np.diff([*bounds, ONE]), low


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the matrix a mask is seen as: contraction times outputs."""
    return math.prod(shape[:-1]), (shape[-1] if shape else 1)


def blocks_of(
    row_class: np.ndarray, column_class: np.ndarray, counts: tuple[int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows and columns of each pair of classes, rows' classes first."""
    rows = [np.flatnonzero(row_class == i) for i in range(counts[0])]
    columns = [np.flatnonzero(column_class == i) for i in range(counts[1])]
    return [(r, c) for r in rows for c in columns]


def read_gaps(stream: Stream, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a mask `[rows, columns]` stored as gaps between its rarer entries.

    Rows and columns have classes, as what is pruned depends on inputs and outputs; in
    each block of one class of rows and one of columns the weights are taken as equally
    likely to be kept. In bits: classes of rows less 1 (3), of columns less 1 (3), the
    filling. The class of each row and of each column, as `read_numbers` has it, where
    there is more than one. Then for each block that is not empty, how many of its
    weights are kept (in as many bits as its size takes), and, if that is neither none
    nor all, how often a gap goes on (exponential Golomb of order 0), see `geometric`;
    then the lanes' binary logarithm (4) if there is any gap, and the filling. Then the
    rests of each block's gaps, each block from a new byte on; then the symbols.
    """
    rows, columns = rows_and_columns(shape)
    head = Bits(stream)
    counts = head.read(3) + 1, head.read(3) + 1
    classes = [
        read_numbers(stream, n) if k > 1 else np.zeros(n, np.uint32)
        for n, k in zip((rows, columns), counts, strict=True)
    ]
    if any(np.any(c >= k) for c, k in zip(classes, counts, strict=True)):
        raise ArtifactError("a mask has a class too many")
    blocks = [b for b in blocks_of(*classes, counts) if len(b[0]) and len(b[1])]
    head, plan = Bits(stream), []
    for r, c in blocks:
        size = len(r) * len(c)
        kept = head.read(size.bit_length())
        if kept > size:
            raise ArtifactError("a mask keeps more than there is")
        rare = min(kept, size - kept)
        plan.append((size, kept, rare, rare + head.golomb(0) if rare else 0))
    total = sum(gaps for *_, gaps in plan)
    if total > 2 * rows * columns:
        raise ArtifactError("a mask has more gaps than weights")
    lanes = 1 << head.read(4) if total else 1
    tables = [geometric(size, rare) for size, _, rare, _ in plan if rare]
    rests, symbols = [], np.zeros(0, np.uint16)
    for (_, low), rare in zip(tables, (p[2] for p in plan if p[2]), strict=True):
        rests.append(unpack_bits(stream.take((rare * low + 7) // 8), rare, low))
    if total:
        gaps = [p[3] for p in plan if p[2]]
        which = np.repeat(np.arange(len(gaps)), gaps) if len(gaps) > 1 else None
        symbols = unravel(stream, total, lanes, [t for t, _ in tables], which)
    mask, at, used = np.zeros((rows, columns), bool), 0, 0
    for (r, c), (size, kept, rare, gaps) in zip(blocks, plan, strict=True):
        flat = np.zeros(size, bool)
        if rare:
            (table, low), rest = tables[used], rests[used]
            part = symbols[at : at + gaps].astype(np.int64)
            at, used = at + gaps, used + 1
            ends = np.flatnonzero(part < len(table) - 1)
            if len(ends) != rare:
                raise ArtifactError(f"a mask has {len(ends)} gaps, not {rare}")
            part <<= low
            part[ends] += rest
            part[ends] += 1
            ends = np.cumsum(part)[ends] - 1
            if ends[-1] >= size:
                raise ArtifactError("a mask's runs are longer than the weight")
            flat[ends] = True
        if 2 * kept > size:
            flat = ~flat
        if len(blocks) == 1:
            return flat.reshape(rows, columns)
        mask[np.ix_(r, c)] = flat.reshape(len(r), len(c))
    return mask


def read_mask(stream: Stream, shape: tuple[int, ...], how: str) -> np.ndarray:
    """Returns a mask of `shape`; `how` is "b" for a bitmap, "r", "g", "4" or "8"."""
    size = math.prod(shape)
    rows, columns = rows_and_columns(shape)
    if how == "b":
        flat = unpack_bits(stream.take((size + 7) // 8), size, 1).astype(bool)
    elif how == "r":
        kept, k, unary = stream.varint(), stream.varint(), stream.varint()
        flat = unpack_runs(stream.take((kept * k + 7) // 8 + unary), size, kept, k)
    elif how == "g":
        flat = read_gaps(stream, shape)
    elif how in ("4", "8") and rows % int(how) == 0:
        patterns = read_numbers(stream, size // int(how)).reshape(-1, 1, columns)
        bits = np.arange(int(how), dtype=np.uint32)[None, :, None]
        flat = (patterns >> bits & np.uint32(1)).astype(bool)
    else:
        raise ArtifactError(f"a mask is not stored as {how!r}")
    return flat.reshape(shape)


def from_unsigned(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns uint32 `[n]` as `dtype`, of 4 bytes at most.

    Signed whole numbers were stored plus half their range; of floats the bits, with
    the sign moved from the highest place to the lowest.
    """
    width = 8 * dtype.itemsize
    if len(numbers) and int(numbers.max()) >> width:
        raise ArtifactError(f"a number does not fit {dtype.name}")
    numbers = numbers.astype(f"<u{dtype.itemsize}")
    one = numbers.dtype.type(1)
    if dtype.kind == "i":
        return (numbers ^ one << numbers.dtype.type(width - 1)).view(dtype)
    if dtype.kind == "f" or dtype == BFLOAT16:
        numbers = numbers >> one | numbers << numbers.dtype.type(width - 1)
    return numbers.view(dtype)


# --- Weights --------------------------------------------------------------------


class _Decoder:
    """Turns the header's lists into nodes, with a limit on what they may unfold to."""

    def __init__(self, stream: Stream):
        self.stream = stream
        self.known: list[tuple[list[Any], int]] = []  # arrays so far, and their bytes

    def nbytes(self) -> int:
        """Returns how many bytes were used so far."""
        return self.stream.at

    def shape(self, shape: Any) -> tuple[int, ...]:
        """Returns `shape` as a tuple and takes its size off what is allowed."""
        whole = isinstance(shape, list) and all(type(n) is int for n in shape)
        if not whole or len(shape) > 32 or not all(0 <= n < 2**48 for n in shape):
            raise ArtifactError(f"{str(shape)[:40]!r} is no shape")
        self.stream.spend(math.prod(shape))
        return tuple(shape)

    def array(self, spec: Any, mask: np.ndarray | None = None) -> np.ndarray:
        """Returns the array that `spec` describes; kept entries where `mask` is."""
        if type(spec) is int:
            if not 0 <= spec < len(self.known):
                raise ArtifactError(f"there is no array {spec}")
            spec, start = self.known[spec]
            here, self.stream.at = self.stream.at, start
            found = self.read(spec, mask)
            self.stream.at = here
            return found
        if isinstance(spec, list):
            self.known.append((spec, self.stream.at))
        return self.read(spec, mask)

    def read(self, spec: Any, mask: np.ndarray | None) -> np.ndarray:
        """Returns an array from where the stream stands."""
        match spec:
            case [str(name), shape]:
                how = "b" if name == "b1" else None
            case [str(name), shape, (int() | str()) as how]:
                pass
            case _:
                raise ArtifactError("an array is not described as one")
        if name not in DTYPES:
            raise ArtifactError(f"unknown dtype {name[:20]!r}")
        dtype = DTYPES[name]
        if shape is not None or mask is None:
            shape = self.shape(shape)
            return self.values(dtype, shape, how).reshape(shape)
        self.stream.spend(mask.size)
        whole = np.zeros(mask.shape, dtype)
        whole[mask] = self.values(dtype, (int(np.count_nonzero(mask)),), how)
        return whole

    def values(self, dtype: np.dtype, shape: tuple[int, ...], how: Any) -> np.ndarray:
        """Returns the numbers of an array of `shape`, stored as `how` says."""
        stream, count = self.stream, math.prod(shape)
        if dtype.kind == "b" and isinstance(how, str):
            return read_mask(stream, shape, how)
        match how:
            case None:
                data = stream.take(count * dtype.itemsize)
                return np.frombuffer(data, dtype).copy()
            case int() if dtype.kind in "iu" and 0 <= how <= min(
                16, 8 * dtype.itemsize
            ):
                data = stream.take((count * how + 7) // 8)
                return _whole(unpack_bits(data, count, how), how, dtype)
            case "n" if dtype.itemsize <= 4:
                return from_unsigned(read_numbers(stream, count), dtype)
            case "m" if dtype.itemsize <= 4:
                common = stream.varint()
                if common >= 2**32:
                    raise ArtifactError("a number is too large")
                others = read_mask(stream, shape, chr(stream.take(1)[0])).ravel()
                numbers = np.full(count, common, np.uint32)
                kept = int(np.count_nonzero(others))
                numbers[others] = read_numbers(stream, kept)
                return from_unsigned(numbers, dtype)
        raise ArtifactError(f"{dtype.name} is not stored as {str(how)[:20]!r}")

    def mask(self, spec: Any) -> np.ndarray:
        """Returns the mask that `spec` describes."""
        mask = self.array(spec)
        if mask.dtype != bool:
            raise ArtifactError("a mask is not of booleans")
        return mask

    def node(self, spec: Any, mask: np.ndarray | None = None) -> Node:
        """Returns the weight that `spec` describes, below `mask` if there is one."""
        match spec:
            case ["d", values]:
                return Node("Dense", {"values": self.array(values, mask)})
            case ["q", int(bits), int(group), codes, scale, zero]:
                fields = {
                    "codes": self.array(codes, mask),
                    "scale": self.array(scale),
                    "zero_point": None if zero is None else self.array(zero),
                    "bits": bits,
                    "group": group,
                }
                _check_grid(**fields)
                return Node("Quantized", fields)
            case ["f", str(name), int(group), levels, codes, scale]:
                fields = {  # in the order of the body
                    "levels": self.array(levels),
                    "codes": self.array(codes, mask),
                    "scale": self.array(scale),
                    "format": name,
                    "group": group,
                }
                _check_levels(fields["codes"], fields["levels"])
                _check_grid(fields["codes"], fields["scale"], None, 8, group)
                return Node("Levels", fields)
            case ["c", indices, centroids, *shape] if len(shape) <= 1:
                fields = {"indices": self.array(indices, mask)}
                below = isinstance(centroids, list) and centroids[:1] != []
                below = (
                    below and isinstance(centroids[0], str) and centroids[0] in KINDS
                )
                fields["centroids"] = (self.node if below else self.array)(centroids)
                fields["shape"] = self.shape(shape[0]) if shape else ()
                _check_codebook(**fields)
                return Node("Codebook", fields)
            case ["s", kept, below]:
                kept = self.mask(kept)
                node = self.node(below, kept)
                if shape_of(node) != kept.shape:
                    raise ArtifactError("a mask and its weight differ in shape")
                return Node("Sparse", {"mask": kept, "values": node})
            case [("l" | "u" | "p" | "+") as letter, *parts]:
                kind, names = KINDS[letter]
                if len(parts) != len(names):
                    raise ArtifactError(f"{kind} does not take {len(parts)} parts")
                fields = {n: self.node(x) for n, x in zip(names, parts, strict=True)}
                node = Node(kind, fields)
                self.stream.spend(_check_product(node))
                return node
            case ["t", *_]:
                raise ArtifactError("a tied weight stands alone")
        raise ArtifactError("unknown representation")


class _Decoder1(_Decoder):
    """Reads the lists of version 1, whose arrays lie in numbered sections.

    array   [section, dtype, shape]         as they are
            [section, dtype, shape, bits]   whole numbers of that many bits
    mask    [section, shape]                a bitmap
            [section, shape, kept, k]       Rice runs
    ["q", group, codes, scale, zero]        with the bits of its codes
    """

    def __init__(self, sections: list[memoryview], allowed: int):
        super().__init__(Stream(b"", allowed))
        self.sections, self.used = sections, set()

    def nbytes(self) -> int:
        return sum(len(self.sections[i]) + CHECKSUM.size for i in self.used)

    def section(self, index: int) -> memoryview:
        if not 0 <= index < len(self.sections):
            raise ArtifactError(f"there is no section {index}")
        self.used.add(index)
        return self.sections[index]

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
        dtype, data = DTYPES[name], self.section(index)
        if shape is None and mask is not None:
            shape, count = mask.shape, int(np.count_nonzero(mask))
            self.stream.spend(mask.size)
        else:
            shape, mask = self.shape(shape), None
            count = math.prod(shape)
        if bits is None:
            self.check(data, count * dtype.itemsize)
            values = np.frombuffer(data, dtype).copy()
        else:
            if dtype.kind not in "biu" or not 0 <= bits <= min(16, 8 * dtype.itemsize):
                raise ArtifactError(f"{name} does not take {bits} bits")
            self.check(data, (count * bits + 7) // 8)
            values = _whole(unpack_bits(data, count, bits), bits, dtype)
        if mask is None:
            return values.reshape(shape)
        whole = np.zeros(shape, dtype)
        whole[mask] = values
        return whole

    def check(self, data: memoryview, expected: int) -> None:
        if len(data) != expected:
            raise ArtifactError(
                f"a section has {len(data)} bytes where its array takes {expected}"
            )

    def mask(self, spec: Any) -> np.ndarray:
        match spec:
            case [int(index), shape]:
                data, shape = self.section(index), self.shape(shape)
                self.check(data, (math.prod(shape) + 7) // 8)
                flat = unpack_bits(data, math.prod(shape), 1).astype(bool)
            case [int(index), shape, int(kept), int(k)]:
                data, shape = self.section(index), self.shape(shape)
                flat = unpack_runs(data, math.prod(shape), kept, k)
            case _:
                raise ArtifactError("a mask is not described as one")
        return flat.reshape(shape)

    def node(self, spec: Any, mask: np.ndarray | None = None) -> Node:
        match spec:
            case ["q", group, [_, _, _, int(bits)] as codes, scale, zero]:
                spec = ["q", bits, group, codes, scale, zero]
        return super().node(spec, mask)


def _whole(numbers: np.ndarray, bits: int, dtype: np.dtype) -> np.ndarray:
    """Returns packed numbers of `bits` bits as they were."""
    if dtype.kind == "i":
        numbers = numbers.astype(np.int32) - (1 << bits >> 1)
    return numbers.astype(dtype)


def _grid_view(shape: tuple[int, ...], group: int) -> tuple[int, ...]:
    """Returns the shape that scales broadcast against: grouped, or `shape` itself."""
    if not group:
        return shape
    return (math.prod(shape[:-1]) // group, group, shape[-1])


def _check_grid(codes, scale, zero_point, bits, group) -> None:
    if codes.dtype.kind not in "iu" or (scale.dtype.kind != "f" and not _is_bf(scale)):
        raise ArtifactError("codes are whole numbers and scales are floats")
    if zero_point is not None and zero_point.dtype.kind not in "iu":
        raise ArtifactError("zero points are whole numbers")
    if not 0 <= bits <= 8 * codes.dtype.itemsize:
        raise ArtifactError(f"codes of {bits} bits in {codes.dtype.name}")
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


def _check_levels(codes, levels) -> None:
    if codes.dtype != np.uint8 or levels.dtype != np.float32 or levels.ndim != 1:
        raise ArtifactError("codes of levels are bytes, and levels a list of float32")
    if codes.size and int(codes.max()) >= levels.size:
        raise ArtifactError(f"a code lies outside its {levels.size} levels")


def _check_codebook(indices, centroids, shape) -> None:
    book = shape_of(centroids) if isinstance(centroids, Node) else centroids.shape
    if indices.dtype.kind != "u" or len(book) != (2 if shape else 1):
        raise ArtifactError("a codebook is not a list of values, or not of vectors")
    if indices.size and int(indices.max()) >= book[0]:
        raise ArtifactError("an index lies outside its codebook")
    if shape and (
        indices.ndim != 2
        or (indices.shape[0] * book[1], indices.shape[1]) != rows_and_columns(shape)
    ):
        raise ArtifactError(
            f"indices {indices.shape} into {book} do not make a weight of {shape}"
        )


def _check_product(node: Node) -> int:
    """Returns the entries that a product or sum unfolds to, if its parts fit."""
    shapes = [shape_of(x) for x in node.fields.values()]
    inner = 0
    match node.kind, shapes:
        case "LowRank", [u, v]:
            fits = len(u) >= 2 and len(v) == 2 and u[-1] == v[0]
        case "Tucker", [u, core, v]:
            fits = (len(u), len(core), len(v)) == (2, 4, 2) and core[2:] == (u[1], v[0])
            inner = math.prod([*core[:2], u[0], core[3]]) if fits else 0
        case "CP", [*factors]:
            fits = all(len(x) == 2 for x in factors)
            ranks = [x[1] for x in factors[:-1]] + [factors[-1][0]] if fits else []
            fits = fits and len(set(ranks)) == 1
            if fits:
                inner = 2 * math.prod([x[0] for x in factors[:-1]] + ranks[:1])
        case _, [base, extra]:
            fits = base == extra
    if not fits:
        told = " and ".join(map(str, shapes))
        what = "are not of one shape" if node.kind == "Sum" else "do not multiply"
        raise ArtifactError(f"factors {told} {what}")
    return inner + math.prod(shape_of(node))


def shape_of(node: Node) -> tuple[int, ...]:
    """Returns the shape of the dense weight that `node` stands for."""
    fields = node.fields
    match node.kind:
        case "LowRank":
            return shape_of(fields["u"])[:-1] + shape_of(fields["v"])[1:]
        case "Tucker":
            first, core, last = (shape_of(x) for x in fields.values())
            return core[:2] + first[:1] + last[1:]
        case "CP":
            *inputs, last = (shape_of(x) for x in fields.values())
            return tuple(x[0] for x in inputs) + last[1:]
        case "Sum":
            return shape_of(fields["base"])
        case "Tied":
            raise ArtifactError("a tied weight has the shape of another")
        case "Codebook" if fields["shape"]:
            return fields["shape"]
    first = {
        "Dense": "values",
        "Quantized": "codes",
        "Levels": "codes",
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


def _product(node: Node) -> np.ndarray:
    """Returns a product or sum of the parts of `node`."""
    parts = [_dense(x) for x in node.fields.values()]
    wide = [_widen(x) for x in parts]
    floats = [x.dtype for x in wide if x.dtype.kind == "f"]
    dtype = np.result_type(*(floats or [x.dtype for x in wide]))
    # NumPy sums float16 in float16; accelerators sum it in float32.
    wide = [x.astype(np.result_type(x, np.float32)) for x in wide]
    match node.kind, wide:
        case "Sum", [base, extra]:
            weight = base + extra
        case "LowRank", [u, v]:
            weight = u @ v
        case "Tucker", [first, core, last]:
            weight = np.tensordot(core, first, ((2,), (1,))).swapaxes(2, 3) @ last
        case "CP", [height, width, first, last]:
            planes = height[:, None, :] * width[None, :, :]
            weight = (planes[:, :, None, :] * first[None, None, :, :]) @ last
    weight = np.asarray(weight).astype(dtype)
    return _narrow(weight) if all(_is_bf(x) for x in parts) else weight


def _dense(node: Node) -> np.ndarray:
    """Returns the weight of `node`; bfloat16 stays `BFLOAT16`."""
    match node:
        case Node("Dense", {"values": values}):
            return values
        case Node("Quantized", {"codes": codes, "scale": scale, "group": group} as f):
            whole = codes.reshape(_grid_view(codes.shape, group)).astype(np.int32)
            if f["zero_point"] is not None:
                whole = whole - f["zero_point"].astype(np.int32)
            # In float32 and rounded once, as training does.
            wide = _widen(scale)
            weight = whole.astype(np.float32) * wide.astype(np.float32)
            weight = weight.astype(wide.dtype).reshape(codes.shape)
            return _narrow(weight) if _is_bf(scale) else weight
        case Node("Levels", {"codes": codes, "scale": scale, "group": group} as f):
            view, wide = _grid_view(codes.shape, group), _widen(scale)
            weight = f["levels"][codes].reshape(view) * wide.astype(np.float32)
            weight = weight.astype(wide.dtype).reshape(codes.shape)
            return _narrow(weight) if _is_bf(scale) else weight
        case Node("Codebook", {"indices": indices, "centroids": book, "shape": shape}):
            found = (_dense(book) if isinstance(book, Node) else book)[indices]
            # Of vectors: [contraction / d, out, d].
            return np.asarray(
                np.swapaxes(found, 1, 2).reshape(shape) if shape else found
            )
        case Node("Sparse", {"mask": mask, "values": below}):
            below = _dense(below)
            weight = np.zeros(mask.shape, below.dtype)
            weight[mask] = below[mask]
            return weight
        case Node("LowRank" | "Tucker" | "CP" | "Sum"):
            return _product(node)
        case Node("Tied", {"path": path}):
            raise ArtifactError(f"tied to {path}: only a whole file can be unfolded")
    raise ArtifactError(f"unknown representation {node.kind}")


def dense(node: Node) -> np.ndarray:
    """Returns the dense weight that `node` stands for; bfloat16 becomes float32.

    To the last bit what JAX computes, but for products of factors (summed in another
    order) and results below the normal range (which XLA flushes to 0 on CPUs).
    """
    with np.errstate(all="ignore"):
        return np.asarray(_widen(_dense(node)))


# --- The file -------------------------------------------------------------------


def _open(blob: bytes) -> tuple[Any, Any, _Decoder]:
    """Returns the header's tree, its metadata and a decoder; the checksums hold."""
    if blob[: len(MAGIC)] != MAGIC[: len(blob)]:
        raise ArtifactError("this is no Pare artifact")
    if len(blob) < PREFIX.size + CHECKSUM.size:
        raise ArtifactError(f"truncated: {len(blob)} bytes are no whole file")
    version = PREFIX.unpack_from(blob)[1]
    if version > VERSION:
        raise ArtifactError(
            f"version {version} is newer than version {VERSION}, the newest that this"
            " program reads"
        )
    if version == 0:
        raise ArtifactError(f"version {version} is not one that ever was")
    # What is stored in no bits (a weight pruned whole) still costs memory to
    # unfold. No real file comes near this; a forged one must not go beyond it.
    allowed = 2**24 + 2**16 * len(blob)
    if version == 1:
        return _open_1(blob, allowed)
    view = memoryview(blob)
    start = PREFIX.size + CHECKSUM.size
    checksum = zlib.crc32(view[start:], zlib.crc32(view[: PREFIX.size]))
    if checksum != CHECKSUM.unpack_from(blob, PREFIX.size)[0]:
        raise ArtifactError("truncated or altered: the checksum does not hold")
    stream = Stream(view[start:], allowed)
    length = stream.varint()
    inflater = zlib.decompressobj(-15, zdict=DICTIONARY)
    match json.loads(_inflate(inflater, stream.take(length))):
        case [dict(tree), dict(metadata)]:
            return tree, metadata, _Decoder(Stream(stream.data[stream.at :], allowed))
    raise ArtifactError("the header is not [tree, metadata]")


def _open_1(blob: bytes, allowed: int) -> tuple[Any, Any, _Decoder]:
    """Opens a file of version 1.

    magic       4 bytes   "PARE"
    version     uint16
    length      uint32    bytes of the header as stored
    checksum    uint32    CRC-32 of the ten bytes above and of the header
    header      JSON [tree, lengths, metadata]; zlib-compressed where that is smaller
    sections    for each of `lengths` that many bytes, then their CRC-32 (uint32)
    """
    start = PREFIX_1.size + CHECKSUM.size
    if len(blob) < start:
        raise ArtifactError(f"truncated: {len(blob)} bytes of at least {start}")
    length = PREFIX_1.unpack_from(blob)[2]
    if len(blob) < start + length:
        raise ArtifactError(
            f"truncated: {len(blob)} bytes, the header alone ends at {start + length}"
        )
    view = memoryview(blob)
    header = view[start : start + length]
    checksum = zlib.crc32(header, zlib.crc32(view[: PREFIX_1.size]))
    if checksum != CHECKSUM.unpack_from(blob, PREFIX_1.size)[0]:
        raise ArtifactError("altered: the header's checksum does not hold")
    plain = header[:1] == b"["
    plain = bytes(header) if plain else _inflate(zlib.decompressobj(), header)
    match json.loads(plain):
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
    return tree, metadata, _Decoder1(sections, allowed)


def _inflate(inflater: Any, header: memoryview) -> bytes:
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
    flat, sizes, where = {}, {}, name
    try:
        tree, metadata, decoder = _open(blob)

        def build(spec: Any, path: str) -> Any:
            nonlocal where
            if isinstance(spec, dict):
                return {
                    key: build(child, f"{path}/{key}" if path else key)
                    for key, child in spec.items()
                }
            where = f"{name}: {path}"
            _check_numbers(spec)
            before = decoder.nbytes()
            match spec:
                case ["t", str(other)]:
                    flat[path] = Node("Tied", {"path": other})
                case _:
                    flat[path] = decoder.node(spec)
            sizes[path] = decoder.nbytes() - before
            return flat[path]

        nodes = build(tree, "")
        if type(decoder) is _Decoder and decoder.stream.at != len(decoder.stream.data):
            where = name
            raise ArtifactError("there is more in the file than in its header")
        rows = []
        for path, node in flat.items():
            where = f"{name}: {path}"
            found = flat[_source(flat, path)]
            removed, total = _removed(node)
            what, size, share = describe(node), sizes[path], removed / max(total, 1)
            rows.append(Row(path, what, shape_of(found), size, share))
        return nodes, metadata, rows
    except ArtifactError as e:
        raise ArtifactError(f"{where}: {e}") from e
    except (ValueError, RecursionError, MemoryError, OverflowError, zlib.error) as e:
        # The checksum held, so this is a header that no writer of ours made.
        what = type(e).__name__
        raise ArtifactError(f"{where}: the header makes no sense ({what})") from e


def _check_numbers(spec: Any) -> None:
    # To Python true is a whole number; to NumPy it is none.
    if isinstance(spec, bool):
        raise ArtifactError("a boolean stands where a number belongs")
    for child in spec if isinstance(spec, list) else ():
        _check_numbers(child)


def _source(flat: dict[str, Node], path: str) -> str:
    """Returns the path of the weight that is stored for the one at `path`.

    A tie names a path in its own tree, which may be a branch of the file's: the first
    of these that there is.
    """
    seen = {path}
    while flat[path].kind == "Tied":
        other, parents = flat[path].fields["path"], path.split("/")[:-1]
        within = ["/".join([*parents[:i], other]) for i in range(len(parents) + 1)]
        path = next((p for p in within if p in flat), "")
        if path in seen or path not in flat:
            raise ArtifactError(f"tied to {other}, which is not a weight of its own")
        seen.add(path)
    return path


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
    flat = dict(_nodes(read(path)[0]))
    return {name: dense(flat[_source(flat, name)]) for name in flat}


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
        case Node("Levels", {"format": name}):
            return f"Levels {name}"
        case Node("Codebook", {"centroids": book}):
            what = f" ({describe(book)})" if isinstance(book, Node) else ""
            shape = shape_of(book) if isinstance(book, Node) else book.shape
            return f"Codebook of {'x'.join(map(str, shape))}{what}"
        case Node("Sparse", {"mask": mask, "values": below}):
            share = np.count_nonzero(mask) / max(mask.size, 1)
            return f"Sparse {share:.1%}, {describe(below)}"
        case Node("LowRank", {"u": u, "v": v}):
            return f"LowRank {shape_of(u)[-1]} ({describe(u)}; {describe(v)})"
        case Node("Tied", {"path": path}):
            return f"Tied to {path}"
        case Node("Tucker" | "CP" | "Sum" as kind, fields):
            return f"{kind} ({'; '.join(map(describe, fields.values()))})"
    raise ArtifactError(f"unknown representation {node.kind}")


def _removed(node: Node) -> tuple[int, int]:
    """Returns how many of the stored weights masks remove, and of how many."""
    match node:
        case Node("Tied"):
            return 0, 0
        case Node("Sparse", {"mask": mask, "values": below}):
            if below.kind in ("LowRank", "Tucker", "CP", "Sum"):
                return _removed(below)
            return mask.size - int(np.count_nonzero(mask)), mask.size
        case Node("LowRank" | "Tucker" | "CP" | "Sum", fields):
            counts = [_removed(part) for part in fields.values()]
            return sum(r for r, _ in counts), sum(n for _, n in counts)
    return 0, math.prod(shape_of(node))


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
