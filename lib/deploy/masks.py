"""Masks in as few bytes as they take: bitmap, Rice runs, patterns, gaps in classes.

What is pruned depends on inputs and outputs: a pixel that is always black, a unit that
died. So the rows and the columns of a weight (contraction and outputs) are put into
classes, each pair of classes gets a density of its own, and the gaps between the kept
weights of such a block are coded as those of a random mask of that density. The classes
are found as in vector quantisation under a limit of entropy (Chou, Lookabaugh & Gray
1989): by the bits that a row takes in a class, plus those that name the class.

Of groups of N:M weights, and of blocks, it is the pattern that has a low entropy.
"""

import math

import numpy as np

from lib.deploy import coder, packing, reader

_ROUNDS = 10  # of putting rows into classes; it settles in a few


def candidates(mask: np.ndarray) -> list[coder.Candidate]:
    """Returns the ways to store `mask`, bool of any shape, as `reader.read_mask` does.

    The first is the bitmap, "b". Of the ways "g" it is the one that promises most.
    """
    size = mask.size
    rows, columns = reader.rows_and_columns(mask.shape)
    matrix = mask.reshape(rows, columns)
    bitmap = (size + 7) // 8
    found = [coder.Candidate(bitmap, "b", lambda: packing.pack_bits(mask, 1))]
    if size == 0:
        return found
    runs, k = packing.pack_mask(mask)
    if k is not None:
        kept = int(np.count_nonzero(mask))
        low = (kept * k + 7) // 8
        head = b"".join(map(coder.varint, (kept, k, len(runs) - low)))
        found.append(coder.Candidate(len(head + runs), "r", lambda: head + runs))
    for height in (4, 8):
        if rows % height == 0:
            groups = matrix.reshape(-1, height, columns)
            bits = (1 << np.arange(height, dtype=np.uint32))[None, :, None]
            patterns = coder.numbers(
                (groups * bits).sum(axis=1, dtype=np.uint32).ravel()
            )
            found.append(patterns._replace(how=str(height)))
    if size > reader.STEPS << 14:
        return found
    gaps = [_gaps(matrix, *classes) for classes in _classes(matrix)]
    return [*found, min(gaps, key=lambda one: one.estimate)]


def _classes(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of classes of rows and of columns that may be worth their bytes."""
    rows, columns = (np.zeros(n, np.uint32) for n in mask.shape)
    found = [(rows, columns)]
    if min(mask.shape) < 2:
        return found
    ones = mask.astype(np.float32)
    for most in (2, 8):  # fewer where entropy merges them
        row_class = _cluster(ones, columns, most)
        column_class = _cluster(ones.T, rows, most)
        both = _cluster(ones.T, row_class, most)
        found += [(row_class, columns), (rows, column_class), (row_class, both)]
    return found


def _cluster(mask: np.ndarray, columns: np.ndarray, most: int) -> np.ndarray:
    """Returns the class of each row, `[rows]`, where the columns have classes."""
    one_hot = np.eye(int(columns.max()) + 1, dtype=np.float32)[columns]
    kept = (mask @ one_hot).astype(np.float64)
    removed = one_hot.sum(axis=0)[None, :] - kept
    order = np.argsort(kept.sum(axis=1), kind="stable")
    classes = np.empty(len(mask), np.int64)
    classes[order] = np.arange(len(mask)) * most // len(mask)
    for _ in range(_ROUNDS):
        member = np.eye(classes.max() + 1)[classes]
        ones, zeros = member.T @ kept + 0.5, member.T @ removed + 0.5
        bits = -np.log2(member.mean(axis=0) + 1e-12)[None, :]
        bits = bits - kept @ np.log2(ones / (ones + zeros)).T
        bits = bits - removed @ np.log2(zeros / (ones + zeros)).T
        new = np.unique(bits.argmin(axis=1), return_inverse=True)[1]
        if np.array_equal(new, classes):
            break
        classes = new
    return classes.astype(np.uint32)


def _gaps(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> coder.Candidate:
    """Returns the way "g", with these classes of rows and columns."""
    counts = [int(c.max()) + 1 for c in (rows, columns)]
    heads = [
        coder.numbers(c) for c, k in zip((rows, columns), counts, strict=True) if k > 1
    ]
    blocks = reader.blocks_of(rows, columns, counts)
    bits = 8 + sum(8 * head.estimate for head in heads) + 4 + 16
    for r, c in blocks:
        size = len(r) * len(c)
        kept = int(np.count_nonzero(mask[r][:, c])) if len(blocks) > 1 else mask.sum()
        rare = min(kept, size - kept)
        bits += size.bit_length() + (1 if rare else 0)
        bits += sum(-n * math.log2(n / size) for n in (rare, size - rare) if n)

    def make() -> bytes:
        return _write_gaps(mask, counts, [head.make() for head in heads], blocks)

    return coder.Candidate(bits / 8, "g", make)


def _write_gaps(mask, counts, heads, blocks) -> bytes:
    head = coder.BitWriter()
    for count in counts:
        head.write(count - 1, 3)
    parts = [head.bytes(), *heads]
    head, rests, symbols, tables = coder.BitWriter(), [], [], []
    bits = 0.0
    for r, c in blocks:
        flat = (mask[np.ix_(r, c)] if len(blocks) > 1 else mask).ravel()
        kept = int(np.count_nonzero(flat))
        head.write(kept, flat.size.bit_length())
        rare = min(kept, flat.size - kept)
        if not rare:
            continue
        bits += rare * math.log2(flat.size / rare) + 1.5 * rare
        gaps = np.diff(np.flatnonzero(flat ^ (2 * kept > flat.size)), prepend=-1) - 1
        table, low = reader.geometric(flat.size, rare)
        longest = len(table) - 1
        more, gaps = np.divmod(gaps, longest << low)
        ends = np.cumsum(more + 1) - 1
        head.golomb(int(more.sum()), 0)
        rests.append(packing.pack_bits(gaps & ((1 << low) - 1), low))
        symbols.append(np.full(ends[-1] + 1, longest, np.int32))
        symbols[-1][ends] = gaps >> low
        tables.append(table)
    if not symbols:
        return b"".join([*parts, head.bytes()])
    whole = np.concatenate(symbols)
    lanes = coder.lanes_for(bits / 8, len(whole))
    head.write(lanes, 4)
    which = None
    if len(tables) > 1:
        which = np.repeat(np.arange(len(tables)), [len(s) for s in symbols])
    coded = coder.interleave(whole, 1 << lanes, tables, which)
    return b"".join([*parts, head.bytes(), *rests, coded])
