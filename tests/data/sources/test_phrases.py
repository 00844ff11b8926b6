"""The phrases made by rules say what their labels say; none is in two parts."""

import re

from lib.data import sources
from lib.data.sources import phrases

WORDS = {**dict.fromkeys(phrases.PRAISE, 1), **dict.fromkeys(phrases.BLAME, 0)}


def test_labels_are_what_the_words_say():
    opened = sources.find("phrases", None)
    assert {k: len(v) for k, v in opened.splits.items()} == {"train": 1648, "test": 400}
    seen = []
    for rows in opened.splits.values():
        for row in rows.__getitems__(range(len(rows))):
            words = re.findall(r"\w+", row["sentence"])
            (said,) = (WORDS[w] for w in words if w in WORDS)
            assert row["label"] == (said != ("not" in words))
            seen.append(row["sentence"])
    assert len(set(seen)) == len(seen)
    assert sum(r["label"] for r in rows) == len(rows) / 2
