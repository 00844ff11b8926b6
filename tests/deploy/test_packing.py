"""Bit packing and Rice runs against pure Python that handles one bit at a time."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lib.deploy import packing, reader


def to_bytes(bits: list[int]) -> bytes:
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(
        sum(bit << i for i, bit in enumerate(bits[start : start + 8]))
        for start in range(0, len(bits), 8)
    )


def naive_pack(numbers: list[int], width: int) -> bytes:
    return to_bytes([number >> i & 1 for number in numbers for i in range(width)])


def naive_gaps(mask: list[bool]) -> list[int]:
    gaps, run = [], 0
    for keep in mask:
        if keep:
            gaps.append(run)
        run = 0 if keep else run + 1
    return gaps


def naive_rice(mask: list[bool], k: int) -> bytes:
    gaps = naive_gaps(mask)
    unary = [bit for gap in gaps for bit in [0] * (gap // 2**k) + [1]]
    return naive_pack([gap % 2**k for gap in gaps], k) + to_bytes(unary)


def naive_rice_decode(stream: bytes, size: int, kept: int, k: int) -> list[bool]:
    bits = [byte >> i & 1 for byte in stream for i in range(8)]
    low = [sum(bits[n * k + i] << i for i in range(k)) for n in range(kept)]
    bits = bits[math.ceil(kept * k / 8) * 8 :]
    mask: list[bool] = []
    for remainder in low:
        high = bits.index(1)
        bits = bits[high + 1 :]
        mask += [False] * (high * 2**k + remainder) + [True]
    return mask + [False] * (size - len(mask))


@pytest.mark.parametrize(
    ("numbers", "bits", "packed"),
    [
        ([], 3, ""),
        ([1, 0, 1, 1, 0, 0, 0, 0, 1], 1, "0d01"),
        ([1, 2, 3, 0], 2, "39"),
        ([5, 7, 1], 3, "7d00"),
        ([0x1, 0xF, 0xA], 4, "f10a"),
        ([31, 0, 31], 5, "1f7c"),
        ([0xAB, 0xCD], 8, "abcd"),
        ([0xABC, 0xDEF], 12, "bcfade"),
        ([0, 0, 0], 0, ""),
    ],
)
def test_pack_bits_literal(numbers, bits, packed):
    assert packing.pack_bits(np.array(numbers, np.uint16), bits).hex() == packed
    unpacked = reader.unpack_bits(bytes.fromhex(packed), len(numbers), bits)
    assert unpacked.tolist() == numbers


@hypothesis.given(st.integers(0, 32), st.data())
def test_pack_bits_is_the_naive_one(bits, data):
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = packing.pack_bits(np.array(numbers, np.int64), bits)
    assert packed == naive_pack(numbers, bits)
    assert reader.unpack_bits(packed, len(numbers), bits).tolist() == numbers


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 11])
def test_pack_bits_over_chunks(bits):
    numbers = np.random.default_rng(0).integers(0, 2**bits, 3 * 2**16 + 5)
    packed = packing.pack_bits(numbers, bits)
    assert len(packed) == math.ceil(len(numbers) * bits / 8)
    whole = int.from_bytes(packed, "little")
    for i in (0, 2**16 - 1, 2**16, 2**17 + 3, len(numbers) - 1):
        assert whole >> i * bits & (1 << bits) - 1 == numbers[i]
    np.testing.assert_array_equal(
        reader.unpack_bits(packed, len(numbers), bits), numbers
    )


@pytest.mark.parametrize("numbers", [[4], [-1]])
def test_pack_bits_refuses_what_does_not_fit(numbers):
    with pytest.raises(ValueError, match="do not fit 2 bits"):
        packing.pack_bits(np.array(numbers), 2)


def test_pack_mask_literal():
    mask = np.zeros(40, bool)
    mask[[3, 8]] = True  # gaps 3, 4: k = 0 takes 9 bits, 1 takes 2 and 5, 2 takes 4 + 3
    stream, k = packing.pack_mask(mask)
    assert (stream.hex(), k) == ("0801", 0)  # 00010000 1, lowest bit first
    mask[[9, 39]] = True  # and gaps 0, 29
    stream, k = packing.pack_mask(mask)
    # k = 2: low parts 3, 0, 0, 1 as 11 00 00 10; high 0, 1, 0, 7 as 1 01 1 00000001.
    assert (stream.hex(), k) == ("430d08", 2)


@pytest.mark.parametrize(
    ("mask", "stream", "k"),
    [
        ([], "", None),
        ([False] * 100, "", 0),
        ([True] * 9, "ff01", None),
        ([True, False] * 8, "5555", None),
    ],
)
def test_pack_mask_extremes(mask, stream, k):
    packed = packing.pack_mask(np.array(mask, bool))
    assert packed == (bytes.fromhex(stream), k)


@hypothesis.given(
    st.one_of(
        st.lists(st.booleans(), max_size=200),
        st.lists(st.sampled_from([False] * 30 + [True]), max_size=600),
    )
)
def test_pack_mask_is_the_smallest_naive_one(mask):
    stream, k = packing.pack_mask(np.array(mask, bool))
    sizes = [len(naive_rice(mask, k)) for k in range(12)]
    assert len(stream) == min([*sizes, math.ceil(len(mask) / 8)])
    if k is None:
        assert stream == naive_pack(list(map(int, mask)), 1)
        return
    assert stream == naive_rice(mask, k)
    assert naive_rice_decode(stream, len(mask), sum(mask), k) == mask
    decoded = reader.unpack_runs(memoryview(stream), len(mask), sum(mask), k)
    assert decoded.tolist() == mask


@pytest.mark.parametrize("size", [10_000, 300_000])
@pytest.mark.parametrize(
    ("sparsity", "bound"),
    [(0.5, 1.001), (0.8, 1.04), (0.9, 1.03), (0.95, 1.03), (0.99, 1.03)],
)
def test_pack_mask_is_near_the_entropy(size, sparsity, bound):
    kept = round(size * (1 - sparsity))
    mask = np.arange(size) < kept
    np.random.default_rng(1).shuffle(mask)
    stream, _ = packing.pack_mask(mask)
    choices = (
        math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    )
    entropy = choices / math.log(2) / 8  # bytes that name one of all such masks
    slack = 1.02 if size * (1 - sparsity) <= 100 else 1  # few gaps, much luck
    assert entropy < len(stream) < entropy * max(bound, 1.002) * slack + 2
