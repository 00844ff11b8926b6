"""Unigram vocabularies, trained: Kudo 2018 (arXiv 1804.10959), section 3.2.

The probability of a word is the sum over all its cuts into pieces of the product of
the pieces' probabilities. Expectation-maximisation fits these, and the pieces that the
likelihood misses least go, a quarter at a time, until few enough are left.

The trainer of the package `tokenizers` finds another vocabulary in each process
(0.23.3: it walks through hash tables of a random order); this one finds the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib import errors

LONGEST = 12  # characters of a piece
SEEDS = 8  # pieces at the beginning, for each that is wanted
KEPT = 0.75  # of the pieces, each time
FITS = 2  # rounds of expectation-maximisation before pieces go
LEAST = 0.5  # expected count of a piece that stays


class Lattice(NamedTuple):
    """All cuts of words of one length, T characters.

    Attributes:
      rows: [W] int; which words they are, in the order they were given in.
      ids: [W, T, M] int; `ids[w, e, l - 1]` is the piece that ends with character e of
        word w and has l characters, or the number of pieces where that is none.
    """

    rows: np.ndarray
    ids: np.ndarray


def train(words: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """Returns the pieces and their log-probabilities, the most probable first.

    Args:
      words: how often each is in the texts.
      size: pieces at most; every character of the words is one in any case.

    Raises:
      UserError: there are more characters than that.
    """
    words = dict(sorted(_short(words).items()))
    characters = sorted(set("".join(words)))
    if len(characters) > size:
        raise errors.UserError(
            f"a unigram vocabulary of {size} pieces cannot hold the {len(characters)} "
            "characters of the texts; raise data.text.size"
        )
    times = np.array(list(words.values()), np.float64)
    pieces = characters + _seeds(words, SEEDS * size)
    counts = np.ones(len(pieces))
    scores = np.log(counts / counts.sum())
    while True:
        for _ in range(FITS):
            counts = expected(lattices(words, pieces), scores, times)
            kept = [
                i
                for i, piece in enumerate(pieces)
                if len(piece) == 1 or counts[i] >= LEAST
            ]
            pieces, counts = [pieces[i] for i in kept], counts[kept]
            counts = np.maximum(counts, LEAST)  # of characters in longer pieces only
            scores = np.log(counts / counts.sum())
        if len(pieces) <= size:
            break
        count = max(size, int(KEPT * len(pieces)))
        kept = _least_missed(pieces, scores, counts, count)
        pieces, scores = [pieces[i] for i in kept], scores[kept]
    order = sorted(range(len(pieces)), key=lambda i: (-scores[i], pieces[i]))
    return [(pieces[i], float(scores[i])) for i in order]


def _short(words: Mapping[str, int], most: int = 32) -> dict[str, int]:
    """Returns the words, those of more characters in parts."""
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(0, len(word), most):
            parts[word[start : start + most]] += times
    return dict(parts)


def _seeds(words: Mapping[str, int], count: int) -> list[str]:
    """Returns the parts of words, of two characters or more, that cover most text."""
    found: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(start + LONGEST, len(word)) + 1):
                found[word[start:end]] += times
    often = [part for part, times in found.items() if times > 1]
    return sorted(often, key=lambda part: (-found[part] * len(part), part))[:count]


def lattices(words: Iterable[str], pieces: Sequence[str]) -> list[Lattice]:
    """Returns the cuts of words into pieces, words of one length together."""
    number = {piece: i for i, piece in enumerate(pieces)}
    none = len(pieces)
    by_length: dict[int, list[tuple[int, str]]] = {}
    for row, word in enumerate(words):
        by_length.setdefault(len(word), []).append((row, word))
    found = []
    for length, members in sorted(by_length.items()):
        ids = [
            number.get(word[end - size : end], none) if size <= end else none
            for _, word in members
            for end in range(1, length + 1)
            for size in range(1, min(length, LONGEST) + 1)
        ]
        shape = (len(members), length, min(length, LONGEST))
        rows = np.array([row for row, _ in members])
        found.append(Lattice(rows, np.array(ids, np.int32).reshape(shape)))
    return found


def expected(
    cuts: Sequence[Lattice], scores: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Returns how often each piece is in the words, expected over all cuts.

    Args:
      cuts: of the words.
      scores: [pieces] log-probabilities.
      times: [words] how often each word counts.
    """
    scores = np.append(scores, -np.inf)
    total = np.zeros(len(scores))
    for rows, ids in cuts:
        words, length, longest = ids.shape
        given = scores[ids]
        before = np.full((words, length + 1), -np.inf)  # log-sums up to each place
        behind = before.copy()
        before[:, 0] = behind[:, length] = 0
        for end in range(1, length + 1):
            for size in range(1, min(end, longest) + 1):
                cut = before[:, end - size] + given[:, end - 1, size - 1]
                before[:, end] = np.logaddexp(before[:, end], cut)
        for start in range(length - 1, -1, -1):
            for size in range(1, min(length - start, longest) + 1):
                end = start + size
                cut = behind[:, end] + given[:, end - 1, size - 1]
                behind[:, start] = np.logaddexp(behind[:, start], cut)
        chance = np.zeros(ids.shape)
        for end in range(1, length + 1):
            for size in range(1, min(end, longest) + 1):
                whole = before[:, end - size] + given[:, end - 1, size - 1]
                whole = whole + behind[:, end] - before[:, length]
                chance[:, end - 1, size - 1] = np.exp(whole) * times[rows]
        total += np.bincount(ids.ravel(), chance.ravel(), len(scores))
    return total[:-1]


def _least_missed(
    pieces: Sequence[str], scores: np.ndarray, counts: np.ndarray, count: int
) -> list[int]:
    """Returns the indices, ascending, of the `count` pieces that are worth most.

    A piece is worth its expected count times what its best cut into others is less
    probable than itself. Characters stay in any case.
    """
    best = np.full(len(pieces), -np.inf)
    padded = np.append(scores, -np.inf)
    for rows, ids in lattices(pieces, pieces):
        words, length, longest = ids.shape
        if length == 1:
            continue
        given = padded[ids]
        given[:, -1, -1] = -np.inf  # the piece itself
        most = np.full((words, length + 1), -np.inf)
        most[:, 0] = 0
        for end in range(1, length + 1):
            for size in range(1, min(end, longest) + 1):
                cut = most[:, end - size] + given[:, end - 1, size - 1]
                most[:, end] = np.maximum(most[:, end], cut)
        best[rows] = most[:, length]
    worth = counts * (scores - best)  # infinite of characters
    order = sorted(range(len(pieces)), key=lambda i: (-worth[i], pieces[i]))
    return sorted(order[:count])
