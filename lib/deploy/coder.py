"""The entropy coder: whole numbers in as many bits as their frequencies ask for.

`numbers` writes what `reader.read_numbers` reads: the high part of each number by an
asymmetric numeral system with static frequencies (Duda 2013, arXiv 1311.2540), the low
part as it is. States are 32 bits wide and give off 16 bits at a time, so that a state
costs two bytes more than what it holds; there is one for short streams and up to 4096
for long ones, on which NumPy works at once, one round of Python for all.

Measured on one core of a machine with an AMD EPYC, 2 cores, that did other work, NumPy
2.4.6, CPU time, one run, n = 4,999,696 (2236 x 2236; "sparse": as an artifact, checks
and all). Bytes, millions of weights a second, there and back; `constriction` 0.5.0 is
the ANS coder of that name, whose bytes leave out the table; Huffman likewise.

                              entropy      here   there  back   constriction    Huffman
    4 bits, normal          1,912,398  1,915,656     30    63      1,912,404  1,947,007
    8 bits, normal          4,516,102  4,528,980     31   100      4,516,108  4,541,996
    16 codes, 95 % one        300,769    301,386     11    85        300,772    747,700
    16 codes, 99.9 % one        9,732      9,773     17   600          9,736    627,463
    300 codes, even         5,142,673  5,155,288     24    97      5,142,676  5,181,418
    mask, 50 % removed        624,962    624,962     55  1650
    mask, 90 %                293,045    293,831     33   240
    mask, 99.9 %                7,094      7,113     59  1207
    sparse 90 %, 4 bits                  486,140     25    75

`constriction` is 0.2 to 0.4 % smaller and codes 170 to 220 and decodes 36 to 98 million
a second, but is a compiled library that the reader would need. zlib takes 112,155 bytes
for 250,000 normal 4-bit codes (here 95,956), 20,401 for 16 codes of which 95 % are one
(15,043).

The bytes a lane: with 256 the 4-bit codes of the first row take 1,924,878 bytes, with
1024 or 2048 (where `reader.STEPS` asks for more lanes) 1,915,656; 299,209 such codes
take 115,356 with 256 and 114,772 with 2048, and are read at 28 and 9 million a second.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lib.deploy import packing, reader

_BYTES_A_LANE = 1024  # a lane costs 2 bytes: 0.2 % of what is stored
_MANY_LANES = 12  # binary logarithm; more are slower, as they leave the cache
_MOST_LANES = 15


class Candidate(NamedTuple):
    """One way to store something.

    Attributes:
      estimate: of its bytes.
      how: what the header calls it.
      make: returns the bytes.
    """

    estimate: float
    how: str | int | None
    make: Callable[[], bytes]


def smallest(candidates: list[Candidate]) -> tuple[str | int | None, bytes]:
    """Returns `how` and the bytes of the smallest; the first of those of one size.

    What is estimated to be larger than what was made already is not made.
    """
    best = None
    for one in sorted(candidates, key=lambda c: c.estimate):
        if best is not None and one.estimate >= len(best[1]):
            break
        content = one.make()
        if best is None or len(content) < len(best[1]):
            best = one.how, content
    return best


class BitWriter:
    """Collects bits, the lowest of a byte first; the inverse of `reader.Bits`."""

    value = 0
    count = 0  # bits so far

    def write(self, number: int, bits: int) -> None:
        """Appends the lowest `bits` bits of `number`."""
        self.value |= (int(number) & ((1 << bits) - 1)) << self.count
        self.count += bits

    def golomb(self, number: int, order: int) -> None:
        """Appends `number` in the exponential Golomb code of `order`."""
        number = int(number) + (1 << order)
        bits = number.bit_length() - 1
        self.write(1 << bits - order, bits - order + 1)
        self.write(number, bits)

    def bytes(self) -> bytes:
        """Returns what was written, the last byte filled with 0."""
        return self.value.to_bytes((self.count + 7) // 8, "little")


def varint(number: int) -> bytes:
    """Returns `number` at seven bits a byte, as `reader.Stream.varint` reads it."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def to_unsigned(x: np.ndarray) -> np.ndarray:
    """Returns flat `x`, of 4 bytes at most, as uint32; see `reader.from_unsigned`."""
    u = np.ascontiguousarray(x).view(f"<u{x.dtype.itemsize}")
    width = 8 * x.dtype.itemsize
    one, most = u.dtype.type(1), u.dtype.type(width - 1)
    if x.dtype.kind == "i":
        u = u ^ one << most
    elif x.dtype.kind == "f" or x.dtype == reader.BFLOAT16:
        u = u << one | u >> most
    return u.astype(np.uint32)


def lanes_for(nbytes: float, count: int) -> int:
    """Returns the binary logarithm of the lanes for `count` symbols in `nbytes`."""
    lanes = min(int(max(nbytes / _BYTES_A_LANE, 1)).bit_length() - 1, _MANY_LANES)
    while count > reader.STEPS << lanes:
        lanes += 1
    return lanes


def interleave(
    symbols: np.ndarray,
    lanes: int,
    tables: list[np.ndarray],
    which: np.ndarray | None = None,
) -> bytes:
    """Returns the states and words that `reader.unravel` turns into `symbols`.

    Args:
      symbols: whole numbers `[count]`, each with a frequency above 0.
      lanes: of states.
      tables: the symbols' frequencies, each table adding up to `reader.ONE`.
      which: table of each symbol, `[count]`; None where there is one.
    """
    frequencies = np.concatenate(tables).astype(np.int64)
    starts = (np.cumsum(frequencies) - frequencies) % reader.ONE
    symbols = symbols.astype(np.int32)
    if which is not None:
        sizes = np.array([len(table) for table in tables])
        symbols += (np.cumsum(sizes) - sizes).astype(np.int32)[which]
    # A state gives off 16 bits where it would outgrow 32: x >= frequency << 18.
    most = ((frequencies << 32 - reader.PRECISION) - 1).astype(np.uint32)
    grows = (reader.ONE - frequencies).astype(np.uint32)
    starts, frequencies = starts.astype(np.uint32), frequencies.astype(np.uint32)
    states = np.full(lanes, reader.START, np.uint32)
    follow = _follow_few if lanes < reader.FEW else _follow_many
    words = follow(states, symbols, frequencies, most, grows, starts)
    return states.astype("<u4").tobytes() + words


def _follow_many(states, symbols, frequencies, most, grows, starts) -> bytes:
    """Lets `states` take the symbols, last first; returns the words they give off."""
    words = []
    for first in reversed(range(0, len(symbols), len(states))):
        s = symbols[first : first + len(states)]
        x = states[: len(s)]
        full = (x > most[s]).nonzero()[0]
        if len(full):
            y = x[full]
            words.append(y.astype("<u2"))  # the lowest 16 bits
            x[full] = y >> np.uint32(16)
        # ONE * (x // f) + x % f + start
        x += x // frequencies[s] * grows[s] + starts[s]
    return b"".join(w.tobytes() for w in words[::-1])


def _follow_few(states, symbols, frequencies, most, grows, starts) -> bytes:
    """Does the same one symbol at a time: faster where there are few lanes."""
    x, words = states.tolist(), []
    table = list(
        zip(*(t.tolist() for t in (frequencies, most, grows, starts)), strict=True)
    )
    lane = (len(symbols) - 1) % len(x)
    for s in reversed(symbols.tolist()):
        state = x[lane]
        frequency, limit, grow, start = table[s]
        if state > limit:
            words.append(state & 0xFFFF)
            state >>= 16
        x[lane] = state + state // frequency * grow + start
        lane = lane - 1 if lane else len(x) - 1
    states[:] = x
    return np.array(words[::-1], "<u2").tobytes()


class Table(NamedTuple):
    """Quantised frequencies: `[symbols]` with sum `2**bits`, stored in that `order`.

    `cost` is the bits that the table and all the symbols take.
    """

    frequencies: np.ndarray
    bits: int
    order: int
    cost: float


def fit_table(counts: np.ndarray) -> Table:
    """Returns the table that is smallest together with what it codes.

    Args:
      counts: of each symbol, `[2 or more]`, the last above 0.
    """
    present = counts > 0
    least = max(int(np.count_nonzero(present)) - 1, 1).bit_length()
    # Finer than the counts themselves is never worth its bits.
    most = max(least, min(int(counts.sum()).bit_length() + 1, reader.PRECISION))
    tables = [_quantise(counts, bits) for bits in range(least, most + 1)]
    return min(tables, key=lambda table: table.cost)


def _quantise(counts: np.ndarray, bits: int) -> Table:
    total, present = int(counts.sum()), counts > 0
    f = np.maximum(np.rint(counts * (2.0**bits / total)).astype(np.int64), present)
    while (lacks := (1 << bits) - int(f.sum())) != 0:
        # From the most frequent ones, which feel it least.
        i = int(f.argmax())
        f[i] += max(lacks, -max(int(f[i]) // 16, 1)) if lacks < 0 else lacks
    coded = float(counts[present] @ (bits - np.log2(f[present])))
    orders = np.arange(8)
    lengths = np.floor(np.log2(f[:-1, None] + (1 << orders)[None, :])) + 1
    stored = (2 * lengths - 1 - orders[None, :]).sum(axis=0)
    order = int(stored.argmin())
    return Table(f, bits, order, coded + float(stored[order]) + 11)


class _Plan(NamedTuple):
    """How numbers are split into rest, symbol and zeros; see `reader.read_numbers`."""

    low: int
    zeros: int
    first: int
    size: int
    table: Table | None
    nbytes: float


def _plan(u: np.ndarray, zeros: int, low: int) -> _Plan | None:
    first = int(u.min() if len(u) else 0) >> zeros + low
    size = (int(u.max() if len(u) else 0) >> zeros + low) - first + 1
    if size > reader.SYMBOLS:
        return None
    table, bits = None, 15 + 2 * max(first >> 4, 1).bit_length() + len(u) * low
    if size > 1:
        symbols = (u >> np.uint32(zeros + low)) - np.uint32(first)
        table = fit_table(np.bincount(symbols, minlength=size))
        bits += table.cost + 24
    return _Plan(low, zeros, first, size, table, bits / 8)


def numbers(u: np.ndarray, width: int = 32) -> Candidate:
    """Returns the way "n" to store `u`, as `reader.read_numbers` reads it.

    Args:
      u: uint32 `[count]`.
      width: bits of the type that the numbers were; the highest 8 of a float's are its
        exponent.
    """
    if len(u) > reader.STEPS << _MOST_LANES:
        return Candidate(math.inf, "n", lambda: b"")
    common = int(np.bitwise_or.reduce(u)) if len(u) else 0
    zeros = (common & -common).bit_length() - 1 if common else 0
    spread = int(u.max()) - int(u.min()) if len(u) else 0
    least = max((spread >> zeros).bit_length() - 12, 0)
    lows = {least, least + 1, max(width - 8 - zeros, least)}
    plans = [_plan(u, zeros, low) for low in sorted(lows) if low < 32]
    plan = min((p for p in plans if p), key=lambda p: p.nbytes)
    return Candidate(plan.nbytes, "n", lambda: _write_numbers(u, plan))


def _write_numbers(u: np.ndarray, plan: _Plan) -> bytes:
    head = BitWriter()
    head.write(plan.low, 5)
    head.write(plan.zeros, 5)
    head.golomb(plan.first, 4)
    head.golomb(plan.size - 1, 2)
    u = u >> np.uint32(plan.zeros)
    rest = packing.pack_bits(u & np.uint32((1 << plan.low) - 1), plan.low)
    if plan.table is None:
        return head.bytes() + rest
    table = plan.table
    head.write(table.bits, 4)
    head.write(table.order, 3)
    for frequency in table.frequencies[:-1]:
        head.golomb(frequency, table.order)
    lanes = lanes_for(table.cost / 8, len(u))
    head.write(lanes, 4)
    symbols = (u >> np.uint32(plan.low)) - np.uint32(plan.first)
    scaled = table.frequencies << reader.PRECISION - table.bits
    return head.bytes() + rest + interleave(symbols, 1 << lanes, [scaled])
