import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.report import formats


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (9_994, "9.99k"),
        (9_996, "10.0k"),
        (99_960, "100k"),
        (266_610, "267k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_066_440, "1.07M"),
    ],
)
def test_counts(n, text):
    assert formats.count(n) == text


@given(st.integers(1, 10**17))
def test_counts_are_short_and_within_half_a_percent(n):
    text = formats.count(n)
    assert len(text) <= 6
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    unit = factor.get(text[-1])
    value = float(text[:-1]) * unit if unit else float(text)
    assert abs(value - n) <= 0.005 * n


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formats.size, 19_390, "19.4 kB"),
        (formats.size, 842, "842 B"),
        (formats.exact, 1_066_440, "1,066,440"),
        (formats.percent, 0.9722, "97.22"),
        (formats.points, -0.28, "-0.28"),
        (formats.points, -0.0001, "+0.00"),
        (formats.points, 1.5, "+1.50"),
        (formats.times, 55.04, "55.0x"),
        (formats.times, 0.98, "0.98x"),
        (formats.times, 9.996, "10.0x"),
        (formats.times, 1204.2, "1204x"),
        (formats.milliseconds, 0.8, "0.800"),
        (formats.milliseconds, 0.99999, "1.00"),
        (formats.milliseconds, 12.34, "12.3"),
        (formats.duration, 3.44, "3.4 s"),
        (formats.duration, 59.97, "1:00"),
        (formats.duration, 125, "2:05"),
        (formats.duration, 3725, "1:02:05"),
    ],
)
def test_numbers_for_people(function, value, text):
    assert function(value) == text


def test_long_paths_stay_apart():
    short = ["a/b/kernel", "a/c/kernel"]
    assert formats.short_paths(short, 10) == short
    assert formats.short_paths(short, 9) == ["b/kernel", "c/kernel"]
    long = [f"net/Block_{i}/Attention_0/{n}" for i in (0, 1) for n in ("query", "key")]
    assert formats.short_paths(long, 21) == [
        "Block_0\u2026ntion_0/query",
        "Block_0\u2026tention_0/key",
        "Block_1\u2026ntion_0/query",
        "Block_1\u2026tention_0/key",
    ]
    assert formats.short_paths(["x" * 9], 6) == ["xx\u2026xxx"]
    assert formats.short_paths([], 6) == []
