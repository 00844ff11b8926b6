"""Texts with and without stop words: what is trained, counted, chosen and told."""

import numpy as np
import pytest

from configs.benchmarks import stop_words as stop_words_config
from experiments import packing, stop_words, targets
from lib import errors, files
from lib.report import stop_words as page
from tests.report import test_html

FILMS = ("not a good film", "a good film", "the plot is dull", "it is not dull")
TEST = (*FILMS, "is it dull", "a dull film", "good", "the film is not good")
LISTED = ("the", "is", "a", "it")


def row(name, validation, test, words, tokens):
    counts = {"tokens in train": tokens, "tokens of the vocabulary": 50}
    counts |= {"stop words taken out in train": words} if words else {}
    known = {"list": name, "words": words, "bytes": [words + 10] * 3, "counts": counts}
    return known | {"validation": validation, "test": test}


ROWS = [
    row("", [0.9, 0.8, 0.7], [0.8, 0.7, 0.9], 0, 200),
    row("few", [0.9, 0.7, 0.8], [0.8, 0.8, 0.95], 3, 150),
    row("many", [0.6, 0.8, 0.7], [0.7, 0.7, 0.7], 9, 100),
    row("<b>", [0.6, 0.6, 0.6], [0.8, 0.7, 0.9], 1, 200),
]
RESULT = {
    "experiment": "stop_words",
    "config": {"seed": 0},
    "environment": {},
    "rows": ROWS,
    "chosen": "",
    "examples": {"validation": 50, "test": 60},
}


def test_the_fewest_words_of_the_best_are_chosen():
    assert stop_words.chosen(ROWS) == stop_words.chosen(ROWS[::-1]) == ""
    assert stop_words.chosen(ROWS[1:]) == "few"


def test_what_it_cost_or_gained_is_told_by_seed():
    few, many, same = page.sentences(RESULT)
    # 80, 70, 90 against 80, 80, 95, and against 70, 70, 70.
    assert few == (
        "Taking out the 3 stop words of few gains 5.00 points of test accuracy (median "
        "of 3 seeds, +0.00 to +10.00); the training texts have 25 % fewer tokens."
    )
    assert "costs 10.00 points" in many and "-20.00 to +0.00" in many
    assert "50 % fewer" in many
    assert "leaves the test accuracy as it is" in same and " 0 % fewer" in same


def test_the_page(tmp_path):
    page.write(tmp_path, RESULT)
    text = test_html.check((tmp_path / "report.html").read_text()).text
    for told in ("gains 5.00 points", "+0.00, +10.00, +5.00", "without <b>"):
        assert told in text
    assert "Medians of 3 seeds" in text and "choose: all words" in text
    assert (tmp_path / "stop_words.svg").exists()


def bad(film):
    return film.count("dull") ^ film.count("not")


@pytest.fixture
def config(tmp_path):
    (tmp_path / "films").mkdir()
    for part, films in (("train", FILMS * 15), ("test", TEST)):
        lines = [f"{film}\t{bad(film)}" for film in films]
        whole = "\n".join(["sentence\tlabel", *lines])
        (tmp_path / "films" / f"{part}.tsv").write_text(whole)
    (tmp_path / "listed.txt").write_text("\n".join(LISTED))
    made = stop_words_config.get_config("smoke")
    made.data.name = str(tmp_path / "films")
    made.data.text.update(dict(size=60, max_length=8, buckets=()))
    small = dict(width=4, heads=1, intermediate=4, vocabulary=60)
    made.dense.model.update(small)
    made.dense.steps = 2
    made.compare.stop_words = (str(tmp_path / "listed.txt"),)
    return made


@pytest.mark.slow
def test_each_list_is_trained_once_and_measured_on_its_file(config, tmp_path):
    result = stop_words.run(config, tmp_path / "run")
    name = config.compare.stop_words[0]
    whole, without = result["rows"]
    assert (whole["list"], without["list"], without["words"]) == ("", name, 4)
    taken = "stop words taken out in "
    parts = ("train", "validation", "test")
    found = sum(without["counts"][taken + part] for part in parts)
    words = " ".join([*FILMS * 15, *TEST]).split()
    assert found == sum(word in LISTED for word in words)
    assert not any(taken in what for what in whole["counts"])
    # A word that is known is a token: these texts have as many fewer of them.
    tokens = [
        sum(r["counts"][f"tokens in {part}"] for part in parts)
        for r in (whole, without)
    ]
    assert tokens[0] - tokens[1] == found
    # The accuracy, from the strings on, of what the file serves.
    for i, r in enumerate(result["rows"]):
        at = tmp_path / "run" / f"list_{i}" / "seed_0"
        one = targets.load(at / "artifacts" / "dense.pare")
        inputs = packing.inputs(one.packed.about)
        logits = one.logits(rounded=True)(inputs.encode(TEST).astype(inputs.width))
        accuracy = np.mean(np.argmax(logits, -1) == [bad(film) for film in TEST])
        np.testing.assert_allclose(r["test"], [accuracy], atol=1e-6)
        assert r["bytes"] == [(at / "artifacts" / "dense.pare").stat().st_size]
    before = files.read_json(tmp_path / "run" / "stop_words.json")
    assert stop_words.run(config, tmp_path / "run") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.kind": "image"}, "stop_words are words of texts: .*, got 'image'"),
        ({"data.text.stop_words": "english"}, "clear data.text.stop_words, got 'eng"),
        ({"compare.stop_words": ()}, "one or more different lists"),
        ({"compare.stop_words": ("",)}, "one or more different lists"),
        ({"compare.stop_words": ("english", "english")}, "one or more different"),
        ({"compare.stop_words": ("englis",)}, "did you mean 'english'"),
        ({"compare.seeds": ()}, "compare.seeds is empty"),
    ],
)
def test_lists_that_cannot_be_compared_are_one_line(config, tmp_path, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message) as caught:
        stop_words.run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
