"""Stop words: words that are taken out of a text before it becomes tokens."""

import os
import re
from collections.abc import Set

from lib import errors


def english() -> tuple[str, ...]:
    """Returns scikit-learn's list of English stop words."""
    from sklearn.feature_extraction import text  # a second, for those who ask

    return tuple(sorted(text.ENGLISH_STOP_WORDS))


LISTS = {"english": english}
WORD = re.compile(r"\w+")


def find(name: str) -> tuple[str, ...]:
    """Returns the stop words that a config names, sorted, in lower case.

    Args:
      name: "" for none, a key of `LISTS`, or the path of a file with a word a line.

    Raises:
      UserError: there is no such list and no such file, or the file is no text, or a
        line of it no single word.
    """
    if not name:
        return ()
    if name in LISTS:
        return LISTS[name]()
    try:
        with open(os.path.expanduser(name), encoding="utf-8") as file:
            found = {line.strip().lower() for line in file}
    except FileNotFoundError as e:
        raise errors.UserError(
            f"stop words {name!r} are no list and no file; {errors.hint(name, LISTS)}"
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        raise errors.UserError(f"stop words {name!r} cannot be read: {e}") from e
    words = tuple(sorted(found - {""}))
    for word in words:
        if not WORD.fullmatch(word):
            raise errors.UserError(
                f"stop words {name!r}: {word!r} is no word of letters and digits alone"
            )
    return words


def remove(text: str, words: Set[str]) -> tuple[str, int]:
    """Returns the text without the words, and how many were taken out.

    A word is letters, digits and "_" between other characters, in upper or lower case:
    "it" is taken out of "It 's" and of "it's", and not out of "items".
    """
    if not words:
        return text, 0
    removed = 0

    def left(found: re.Match[str]) -> str:
        nonlocal removed
        word = found.group()
        if word.lower() not in words:
            return word
        removed += 1
        return ""

    return WORD.sub(left, text), removed
