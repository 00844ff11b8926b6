"""The entropy coder against one that is written with whole numbers of any size."""

import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from lib.deploy import coder, masks, packing, reader


def entropy(counts) -> float:
    """Bytes of so many symbols, independent and of these frequencies."""
    counts = np.asarray(counts, float)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def naive(symbols, lanes, table) -> bytes:
    """Duda's rANS with a state that never gives anything off but 16 bits at a time."""
    table = [int(f) for f in table]
    states, words = [2**16] * lanes, []
    for i in reversed(range(len(symbols))):
        x, f = states[i % lanes], table[symbols[i]]
        if (x // f) * 2**14 + x % f + sum(table[: symbols[i]]) >= 2**32:
            words.insert(0, x % 2**16)
            x //= 2**16
        states[i % lanes] = (x // f) * 2**14 + x % f + sum(table[: symbols[i]])
    return np.array(states, "<u4").tobytes() + np.array(words, "<u2").tobytes()


# --- Symbols --------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2, 8, 16, 64])
@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_interleave_is_the_naive_one(count, lanes):
    rng = np.random.default_rng(count + lanes)
    table = np.array([1, 10_000, 0, 373, 6000, 10])
    symbols = rng.choice(6, size=count, p=table / table.sum())
    coded = coder.interleave(symbols, lanes, [table])
    assert coded == naive(symbols.tolist(), lanes, table)
    stream = reader.Stream(coded + b"next")
    decoded = reader.unravel(stream, count, lanes, [table])
    np.testing.assert_array_equal(decoded, symbols)
    assert stream.take(4) == b"next"


@pytest.mark.parametrize("lanes", [2, 32])
def test_each_symbol_has_its_table(lanes):
    rng = np.random.default_rng(0)
    tables = [np.array([2**14]), np.array([1, 2**14 - 1]), np.array([2**13, 2**13])]
    which = rng.integers(0, 3, 3000)
    symbols = np.where(which == 0, 0, np.where(which == 1, 1, rng.integers(0, 2, 3000)))
    coded = coder.interleave(symbols, lanes, tables, which)
    assert len(coded) < 1000 / 8 + 4 * lanes + 4  # only the last table's cost a bit
    decoded = reader.unravel(reader.Stream(coded), 3000, lanes, tables, which)
    np.testing.assert_array_equal(decoded, symbols)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 9))))
def test_bits_come_back(numbers):
    head = coder.BitWriter()
    for number, order in numbers:
        head.golomb(number, order)
        head.write(number, order)
    bits = reader.Bits(reader.Stream(head.bytes()))
    for number, order in numbers:
        assert bits.golomb(order) == number
        assert bits.read(order) == number % 2**order


def test_golomb_literal():
    head = coder.BitWriter()
    for number in (0, 1, 2):  # 1, 01 0, 01 1 from the lowest bit up
        head.golomb(number, 0)
    assert head.bytes() == bytes([0b0110_0101])
    assert coder.varint(300) == b"\xac\x02"


# --- Numbers --------------------------------------------------------------------


@hypothesis.given(
    hnp.arrays(
        np.uint32,
        st.integers(0, 300),
        elements=st.one_of(
            st.integers(0, 3), st.integers(0, 2**32 - 1), st.sampled_from([2**31, 96])
        ),
        fill=st.nothing(),
    )
)
def test_numbers_come_back(u):
    content = coder.numbers(u).make()
    stream = reader.Stream(content)
    np.testing.assert_array_equal(reader.read_numbers(stream, len(u)), u)
    assert stream.at == len(content)


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "bf"]
)
def test_every_pattern_of_bits_comes_back(dtype):
    dtype = reader.BFLOAT16 if dtype == "bf" else np.dtype(dtype)
    data = np.random.default_rng(0).integers(0, 256, 4000, np.uint8)
    x = data.view(dtype)
    u = coder.to_unsigned(x)
    assert u.dtype == np.uint32 and int(u.max()) < 2 ** (8 * dtype.itemsize)
    assert reader.from_unsigned(u, dtype).tobytes() == x.tobytes()


def test_a_float_is_its_exponent_first():
    u = coder.to_unsigned(np.array([1, -1, 2, 0.5, 1.5], np.float32))
    assert (u >> 24).tolist() == [127, 127, 128, 126, 127]
    assert (u & 1).tolist() == [0, 1, 0, 0, 0]


SIZES = [
    (2_000, 32),
    (50_000, 64),
    (400_000, 64),
]


@pytest.mark.parametrize(("count", "allowance"), SIZES)
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_codes_take_their_entropy(bits, count, allowance):
    rng = np.random.default_rng(bits)
    high = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(rng.normal(size=count) * high / 3), -high, high) + high
    codes = codes.astype(np.uint32)
    content = coder.numbers(codes).make()
    table = 1.2 * len(np.unique(codes))  # bytes
    assert len(content) < 1.005 * entropy(np.bincount(codes)) + table + allowance


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_skewed_codebooks_take_their_entropy(share):
    from lib import representations as reps
    from lib.deploy import artifact

    rng = np.random.default_rng(1)
    p = [share] + [(1 - share) / 15] * 15
    indices = rng.choice(16, size=(700, 300), p=p).astype(np.uint8)
    book = rng.normal(size=16).astype(np.float16)
    (row,) = reader.parse(artifact.pack({"w": reps.Codebook(indices, book)}), "")[2]
    assert row.nbytes < 1.02 * entropy(np.bincount(indices.ravel())) + 32 + 30


def test_floats_of_one_scale_take_less():
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    assert coder.numbers(coder.to_unsigned(x)).estimate < 0.88 * x.nbytes
    powers = coder.numbers(coder.to_unsigned(2.0 ** np.arange(-8, 8, dtype="f4")))
    assert len(powers.make()) <= 20


# --- Masks ----------------------------------------------------------------------


def stored(mask) -> int:
    how, content = coder.smallest(masks.candidates(mask))
    stream = reader.Stream(content)
    np.testing.assert_array_equal(reader.read_mask(stream, mask.shape, how), mask)
    assert stream.at == len(content)
    return len(content)


@hypothesis.given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)),
    st.integers(0, 2**32),
)
def test_every_way_to_store_a_mask_comes_back(mask, seed):
    rng = np.random.default_rng(seed)
    mask = mask & (rng.random(mask.shape) < rng.random())
    ways = masks.candidates(mask)
    for way in ways:
        content = way.make()
        stream = reader.Stream(content)
        found = reader.read_mask(stream, mask.shape, way.how)
        np.testing.assert_array_equal(found, mask)
        assert stream.at == len(content)
    assert stored(mask) == min([len(way.make()) for way in ways]) or len(ways) > 2


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize(("shape", "allowance"), [((784, 300), 12), ((2000, 500), 12)])
def test_masks_take_their_entropy(shape, sparsity, allowance):
    rng = np.random.default_rng(0)
    mask = rng.random(shape) >= sparsity
    kept = int(mask.sum())
    bound = entropy([kept, mask.size - kept])
    assert stored(mask) < 1.02 * bound + allowance
    assert stored(~mask) < 1.02 * bound + allowance


def test_uneven_rows_and_columns_take_less():
    """As a pruned MLP on pictures: a third of the pixels are black, units differ."""
    rng = np.random.default_rng(0)
    pixel = np.clip(rng.normal(0.1, 0.1, (784, 1)), 0, 1)
    unit = rng.uniform(0.3, 1.7, (1, 300))
    density = np.clip(pixel * unit, 0, 1)
    mask = rng.random((784, 300)) < density
    kept = int(mask.sum())
    inside = density[(density > 0) & (density < 1)]
    truth = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside)).sum() / 8
    assert stored(mask) < 0.88 * entropy([kept, mask.size - kept])
    assert stored(mask) < 1.06 * truth  # which nobody told


def test_removed_channels_cost_nothing():
    rng = np.random.default_rng(0)
    mask = np.outer(rng.random(400) < 0.5, rng.random(300) < 0.4)
    assert stored(mask) < (400 + 300) / 8 + 24


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8)])
def test_groups_cost_the_choice_of_their_pattern(n, m):
    rng = np.random.default_rng(0)
    mask = rng.permuted(np.arange(m) < n + np.zeros((200 * 150, 1)), axis=1)
    mask = mask.reshape(200, 150, m).swapaxes(1, 2).reshape(200 * m, 150)
    bits = 200 * 150 * math.log2(math.comb(m, n))
    assert stored(mask) < 1.005 * bits / 8 + math.comb(m, n) + 16


def test_gaps_of_any_length():
    for size in (1, 2, 40, 2**20):
        for ends in ([0], [size - 1], [0, size - 1], []):
            mask = np.zeros(size, bool)
            mask[ends] = True
            for way in masks.candidates(mask) + masks.candidates(~mask):
                assert way.make() == way.make()
            assert stored(mask) <= max(1, 17)


def test_geometric_tables_add_up():
    for size, kept in ((2, 1), (10, 5), (1000, 1), (2**40, 3), (2**40, 2**39), (99, 7)):
        table, low = reader.geometric(size, kept)
        assert table.sum() == reader.ONE and table.min() > 0 and len(table) <= 128
        mean = (size - kept) / kept / 2**low
        assert mean < 17 and (low == 0 or mean > 6)


def test_the_smallest_way_is_taken():
    made = []

    def way(name, estimate, nbytes):
        return coder.Candidate(
            estimate, name, lambda: made.append(name) or bytes(nbytes)
        )

    ways = [way("a", 9, 9), way("b", 5, 8), way("c", 6.5, 6), way("d", 6, 7)]
    assert coder.smallest(ways) == ("c", bytes(6))
    assert made == ["b", "d", "c"]  # and not the one that promises 9
    assert packing.pack_bits(np.zeros(0), 3) == b""
