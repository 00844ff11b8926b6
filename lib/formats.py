"""Formats of few bits that are no even grid: each a sorted table of levels.

`weight = FORMATS[name][code] * scale`. The tables are as the formats are published: the
largest level is not always 1.
"""

import itertools

import jax.numpy as jnp
import numpy as np


def _signed(magnitudes) -> np.ndarray:
    """Returns the magnitudes and their negatives, ascending, each once."""
    magnitudes = np.asarray(sorted(magnitudes), np.float64)
    both = np.concatenate([-magnitudes, magnitudes]) + 0.0  # -0.0 + 0.0 is 0.0
    return np.unique(both).astype(np.float32)


def _floats(dtype) -> np.ndarray:
    """Returns the finite values of a float type of at most 8 bits; one zero."""
    dtype = np.dtype(dtype)
    count = 2 ** jnp.finfo(dtype).bits
    values = np.arange(count, dtype=np.uint8).view(dtype).astype(np.float32)
    return _signed(np.abs(values[np.isfinite(values)]))


def powers_of_two(bits: int) -> np.ndarray:
    """Returns 0 and `2**(bits - 2)` powers of two of each sign, the largest 1.

    INQ (Zhou et al. 2017, arXiv 1702.03044, eq. 1 and 2): one of the codes' bits is
    spent on zero, so that `2**(bits - 1) + 1` levels take `bits` bits.
    """
    return _signed([0.0, *(2.0**-i for i in range(2 ** (bits - 2)))])


def additive_powers_of_two(bits: int) -> np.ndarray:
    """Returns `2**bits - 1` levels, each a sum of a few powers of two.

    APoT (Li et al. 2020, arXiv 1909.13144, eq. 7 and 8) of a sign and m = bits - 1 bits
    of magnitude: sums of n = m // 2 terms of two bits each, and of a term of one bit
    where m is odd. Each term is 0 or one of its own powers, which interleave:
    `{0, 2**-i, 2**-(i + n), 2**-(i + 2n)}` for i = 0 to n - 1; with m odd the third
    of them moves one further, `2**-(i + 2n + 1)`, for the last term `{0, 2**-2n}`. The
    paper's gamma, which makes the largest level 1, is part of the scale.
    """
    terms, odd = (bits - 1) // 2, (bits - 1) % 2
    sets = [
        [0.0, 2.0**-i, 2.0 ** -(i + terms), 2.0 ** -(i + 2 * terms + odd)]
        for i in range(terms)
    ]
    if odd:
        sets.append([0.0, 2.0 ** (-2 * terms)])
    return _signed(sum(chosen) for chosen in itertools.product(*sets))


# QLoRA's NormalFloat (Dettmers et al. 2023, arXiv 2305.14314, appendix E): quantiles of
# a normal distribution, 8 above and 7 below an exact 0. As published, from float32.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)

# name -> levels: float32, ascending, at most 256 of them; +0.0 is one of them wherever
# there is a zero. "e4m3" and "e5m2" are OCP's 8-bit floats (Micikevicius et al. 2022,
# arXiv 2209.05433), "e2m1" that of 4 bits (arXiv 2310.10537).
FORMATS: dict[str, np.ndarray] = {
    "binary": np.float32([-1, 1]),
    "ternary": np.float32([-1, 0, 1]),
    "nf4": np.float32(_NF4),
    "e2m1": _floats(jnp.float4_e2m1fn),
    "e4m3": _floats(jnp.float8_e4m3fn),
    "e5m2": _floats(jnp.float8_e5m2),
    # Beyond 6 bits the smallest power is of no use next to the largest.
    **{f"pow2_{bits}": powers_of_two(bits) for bits in range(3, 7)},
    **{f"apot_{bits}": additive_powers_of_two(bits) for bits in range(3, 9)},
}
for _table in FORMATS.values():
    _table.setflags(write=False)


def bits(name: str) -> int:
    """Returns the bits that a code of the format takes."""
    return (len(FORMATS[name]) - 1).bit_length()
