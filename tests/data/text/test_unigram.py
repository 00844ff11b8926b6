"""Expectations over all cuts of a word, against a sum over them one by one."""

import collections
import itertools
import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data.text import unigram

PIECES = ("a", "b", "c", "ab", "bc", "abc", "aa", "aab")


def cuts(word):
    """Yields every way to cut a word into pieces."""
    for count in range(len(word)):
        for places in itertools.combinations(range(1, len(word)), count):
            ends = (0, *places, len(word))
            found = [word[a:b] for a, b in itertools.pairwise(ends)]
            if all(piece in PIECES for piece in found):
                yield found


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(1, 9)),
    st.lists(st.floats(0.01, 1), min_size=len(PIECES), max_size=len(PIECES)),
)
def test_expected_counts_are_sums_over_all_cuts(words, chances):
    chance = dict(zip(PIECES, chances, strict=True))
    want = collections.Counter()
    for word, times in words.items():
        weights = [math.prod(chance[p] for p in cut) for cut in cuts(word)]
        for cut, weight in zip(cuts(word), weights, strict=True):
            for piece in cut:
                want[piece] += times * weight / sum(weights)
    lattices = unigram.lattices(words, PIECES)
    times = np.array(list(words.values()), float)
    got = unigram.expected(lattices, np.log(chances), times)
    np.testing.assert_allclose(got, [want[p] for p in PIECES], rtol=1e-9, atol=1e-12)


def test_pieces_are_what_the_words_are_made_of():
    words = {f"{a}{b}": 10 for a in ("walk", "talk") for b in ("", "ed", "ing")}
    found = dict(unigram.train(words, 14))
    letters = set("".join(words))
    assert len(found) <= 14 and letters <= set(found)
    assert {"walk", "talk"} <= set(found)
    assert sum(map(math.exp, found.values())) == pytest.approx(1, abs=0.05)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_there_is_room_for_every_character():
    assert len(unigram.train({string.ascii_lowercase: 1}, 26)) == 26
    with pytest.raises(errors.UserError, match="of 25 pieces cannot hold the 26"):
        unigram.train({string.ascii_lowercase: 1}, 25)
    long = unigram.train({"ab" * 100: 1}, 4)  # longer than the words it looks at
    assert {"a", "b"} <= {piece for piece, _ in long}
