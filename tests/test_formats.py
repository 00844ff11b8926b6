"""Tables of levels against what was published, and against other derivations."""

import itertools
import statistics

import ml_dtypes
import numpy as np
import pytest

from lib import formats
from lib.formats import FORMATS


def signed(*magnitudes):
    return sorted({s * m for s in (-1.0, 1.0) for m in magnitudes})


def apot(sets):
    """The paper's sums, one chosen of each set, divided by the largest."""
    sums = [sum(chosen) for chosen in itertools.product(*sets)]
    return signed(*(x / max(sums) for x in sums))


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_is_sorted_plain_and_not_to_be_changed(name):
    levels = FORMATS[name]
    assert levels.dtype == np.float32 and levels.ndim == 1
    assert (np.diff(levels) > 0).all() and np.isfinite(levels).all()
    assert not np.signbit(levels[levels == 0]).any()
    assert 2 ** (formats.bits(name) - 1) < len(levels) <= 2 ** formats.bits(name) <= 256
    with pytest.raises(ValueError):
        levels[0] = 1


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_floats_are_those_that_ml_dtypes_rounds_to(name):
    dtype = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[name]
    levels = FORMATS[name]
    np.testing.assert_array_equal(levels.astype(dtype).astype(np.float32), levels)
    # As many as there are codes, less infinities, NaNs and the other zero.
    assert len(levels) == 256 - {"e4m3": 2, "e5m2": 8}[name] - 1
    assert levels[-1] == {"e4m3": 448, "e5m2": 57344}[name]
    smallest = {"e4m3": 2.0**-9, "e5m2": 2.0**-16}[name]
    assert levels[levels > 0][0] == smallest


def test_literals():
    assert FORMATS["binary"].tolist() == [-1, 1]
    assert FORMATS["ternary"].tolist() == [-1, 0, 1]
    # OCP's microscaling formats, table 5.
    assert FORMATS["e2m1"].tolist() == signed(0, 0.5, 1, 1.5, 2, 3, 4, 6)
    # INQ at 5 bits: n2 = n1 + 1 - 2**4 / 2, that is 8 powers.
    assert FORMATS["pow2_5"].tolist() == signed(0, *(2.0**-i for i in range(8)))
    assert FORMATS["pow2_3"].tolist() == signed(0, 0.5, 1)


def test_nf4_are_quantiles_of_the_normal_distribution():
    """QLoRA's eq. 4, as its code has it, in float64."""
    quantile = statistics.NormalDist().inv_cdf
    offset = 0.9677083
    above = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    expected = np.array(sorted([*below, 0.0, *above])) / max(above)
    np.testing.assert_allclose(FORMATS["nf4"], expected, rtol=0, atol=2e-7)
    assert FORMATS["nf4"][[0, 1, 7, 8, 15]].tolist() == [
        *(-1.0, np.float32(-0.6961928009986877), 0.0),
        *(np.float32(0.07958029955625534), 1.0),
    ]


# Terms of the authors' code, for so many bits with the sign.
APOT = {
    3: [[0, 1 / 2, 1 / 4, 1 / 8]],
    4: [[0, 1 / 2, 1 / 4, 1 / 16], [0, 1 / 8]],
    5: [[0, 1 / 2, 1 / 8, 1 / 32], [0, 1 / 4, 1 / 16, 1 / 64]],
    6: [[0, 1 / 2, 1 / 8, 1 / 64], [0, 1 / 4, 1 / 16, 1 / 128], [0, 1 / 32]],
    7: [[0, *(2.0 ** -(3 * i + j) for i in range(3))] for j in (1, 2, 3)],
}


@pytest.mark.parametrize("bits", APOT)
def test_apot_are_the_authors(bits):
    levels = FORMATS[f"apot_{bits}"]
    scaled = levels.astype(np.float64) / float(levels[-1])
    np.testing.assert_allclose(scaled, apot(APOT[bits]), rtol=1e-15, atol=0)
    assert len(levels) == 2**bits - 1


def test_apot_of_4_bits_is_the_literal():
    levels = FORMATS["apot_4"]
    expected = signed(0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
    np.testing.assert_allclose(levels / levels[-1], expected, rtol=1e-6)
