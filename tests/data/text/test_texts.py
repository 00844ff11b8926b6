"""The front door of texts: parts, counts, and one line for each mistake."""

import os
import pathlib

import jax
import numpy as np
import pytest

from lib import errors
from lib.data import buckets, dataset, inputs, mapped, parts, pipeline, splits
from lib.data.sources import rows
from lib.data.text import stop_words, texts

NAMES = parts.Names("train", "dev", "test", 0.25, 0.25)
SETTINGS = dict(
    fields=("sentence",),
    tokenizer="wordpiece",
    vocabulary="",
    size=100,
    lowercase=True,
    stop_words="",
    max_length=10,
    buckets=(),
    too_long="cut",
    pad="",
)
SENTENCES = ("a good film", "a bad film", "so good", "so bad", "good good good good")


class Rows(list):
    """Rows in memory."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


def row(sentence, label):
    return {"sentence": sentence, "label": label}


def opened(**changes):
    found = {
        "train": [row(s, "bad" if "bad" in s else "good") for s in SENTENCES * 4],
        "dev": [row("a good bad film", "good")],
        "test": [row("\u4e2d", "good"), row("", "bad"), row("film " * 20, "bad")],
        **changes,
    }
    splits_ = {name: Rows(examples) for name, examples in found.items()}
    return rows.Opened("films", splits_, ("sentence", "label"), {})


def load(source=None, names=NAMES, resident_bytes=2**20, fitted=None, **changes):
    made = texts.load(
        source or opened(),
        names,
        label="label",
        resident_bytes=resident_bytes,
        text={**SETTINGS, **changes},
        fitted=fitted,
    )
    return dataset.Dataset("films", *made)


def test_parts_classes_and_counts():
    data = load()
    kinds = [type(part) for part in data[1:4]]
    assert kinds == [splits.Train, splits.Validation, splits.Test]
    assert [len(part) for part in data[1:4]] == [20, 1, 3]
    assert (data.classes, data.names, data.shape) == (2, ("bad", "good"), (10,))
    assert data.example.dtype == np.int32 and data.stored.dtype == np.uint16
    ids = data.train.source.fields["input"]
    assert ids.shape == (20, 10) and ids.dtype == np.uint16
    want = data.inputs.encode(list(SENTENCES) * 4)
    np.testing.assert_array_equal(ids, want)
    counts = data.counts
    assert counts["texts in train"] == 20
    assert counts["unknown tokens in test"] == 1
    assert counts["texts that are empty in test"] == 1
    assert counts["texts that were cut in test"] == 1
    assert "texts that were cut in train" not in counts
    assert counts["tokens in test"] == 3 + 2 + 10
    assert counts["places of padding in test"] == 30 - 15
    assert counts["tokens of the vocabulary"] == data.inputs.vocabulary
    assert data.test.source.fields["label"].tolist() == [1, 0, 0]


def test_the_vocabulary_is_of_the_training_part_alone():
    names = parts.Names("train", "", "", 0.25, 0.25)
    drawn = load(names=names)
    assert [len(part) for part in drawn[1:4]] == [10, 5, 5]
    # Letters that only other splits have are not in it.
    other = opened(dev=[row("zzz", "good")], test=[row("yyy", "good")])
    assert load(other).inputs == load().inputs
    trained_on = [*opened().splits["train"], row("zzz", "good")]
    assert load(opened(train=trained_on)).inputs != load().inputs


def test_what_was_fitted_is_taken_as_it_is():
    first = load(stop_words="english")
    label = inputs.to_label(first.inputs)
    again = load(vocabulary="moved away", fitted=inputs.from_label(label))
    assert again.inputs == first.inputs
    np.testing.assert_array_equal(
        *(d.test.source.fields["input"] for d in (first, again))
    )


def test_pairs_and_what_a_field_may_hold():
    train = [
        {"a": b"what film", "b": "a good film", "label": 1},
        {"a": "what", "b": None, "label": 0},
        {"a": float("nan"), "b": "film", "label": 1},
    ]
    source = rows.Opened(
        "pairs", {n: Rows(train) for n in NAMES[:3]}, ("a", "b", "label"), {}
    )
    data = load(source, fields=("a", "b"))
    assert data.counts["texts that are empty in train"] == 2
    want = [("what film", "a good film"), ("what", ""), ("", "film")]
    ids = data.train.source.fields["input"]
    np.testing.assert_array_equal(ids, data.inputs.encode(want))
    # [CLS] what film [SEP] a good film [SEP]
    assert (ids[0] == 3).sum() == 2 and data.names == ("0", "1")


def test_buckets():
    data = load(buckets=(4, 6))
    ids = data.train.source.fields["input"]
    lengths = (ids != 0).sum(1)
    assert data.train.buckets.lengths == (4, 6, 10)
    want = [0 if n <= 4 else 1 if n <= 6 else 2 for n in lengths]
    assert data.train.buckets.index.tolist() == want
    padded = data.counts["places of padding in train"]
    assert padded < load().counts["places of padding in train"]
    assert load().train.buckets is None
    all_padding = buckets.of(np.zeros((2, 4), np.uint16), 0, (2, 4))
    assert all_padding.index.tolist() == [0, 0]


def test_stop_words_are_taken_out_and_counted(tmp_path):
    words = frozenset(stop_words.find("english"))
    assert stop_words.remove("It 's THE item, isn't it?", words) == (
        " 's  item, isn't ?",
        3,
    )
    data = load(stop_words="english")
    # "so" and "a"; good and bad are no stop words.
    assert data.counts["stop words taken out in train"] == 16
    path = tmp_path / "words.txt"
    path.write_text("Good\n\nbad \n")
    assert stop_words.find(str(path)) == ("bad", "good")
    assert stop_words.find("") == ()
    path.write_text("good\nno good\n")
    with pytest.raises(errors.UserError, match="'no good' is no word"):
        stop_words.find(str(path))
    with pytest.raises(errors.UserError, match="cannot be read"):
        stop_words.find(str(tmp_path))


@pytest.mark.parametrize("lengths", [(), (4, 6)])
@pytest.mark.parametrize("names", [NAMES, parts.Names("train", "", "", 0.25, 0.25)])
def test_a_set_that_is_streamed_gives_the_same_batches(lengths, names):
    held = load(names=names, buckets=lengths)
    size = sum(map(len, held[1:4])) * 10 * 2
    assert load(names=names, resident_bytes=size).train.buckets is None
    streamed = load(names=names, resident_bytes=size - 1, buckets=lengths)
    told = {**streamed.counts}
    assert told.pop("bytes of ids that are streamed") == size
    assert (told, streamed.inputs) == (held.counts, held.inputs)
    for one, other in zip(held[1:4], streamed[1:4], strict=True):
        assert isinstance(other.source, mapped.Mapped) and type(one) is type(other)
        assert isinstance(other.source.inputs, np.memmap)
        for i in range(len(one)):
            np.testing.assert_equal(other.source[i], one.source[i])
        for cut in (False, True):
            batches = [pipeline.eval_batches(s, 3, cut=cut) for s in (one, other)]
            for a, b in zip(*batches, strict=True):
                np.testing.assert_equal(a, b)
    for seed in (0, 1):
        feeds = [
            pipeline.feed(data.train, batch_size=6, seed=seed, threads=1, ahead=1)
            for data in (held, streamed)
        ]
        assert isinstance(feeds[0], pipeline.OnDevice) == (not lengths)
        for step in range(9):  # over epochs, which are no multiple of a batch
            rows = [jax.tree.map(lambda r: r[0], feed.next(1)) for feed in feeds]
            raw = [f.take(f.resident, r) for f, r in zip(feeds, rows, strict=True)]
            jax.tree.map(np.testing.assert_array_equal, *raw)
            if step == 4:
                again = pipeline.feed(
                    streamed.train, batch_size=6, seed=seed, threads=1, ahead=1
                )
                again.restore(feeds[1].state())
                feeds[1] = again


def test_texts_are_read_as_they_are_wanted():
    """No more of them at a time than a chunk, whatever the set's size."""
    asked = []

    class Counted(Rows):
        def __getitems__(self, indices):
            asked.append(len(indices))
            return super().__getitems__(indices)

    source = opened()
    many = Counted(source.splits["train"] * 2000)
    source = source._replace(splits={**source.splits, "train": many})
    data = load(source, resident_bytes=0)
    assert max(asked) <= 4096 < len(data.train) == len(many)
    want = data.inputs.encode([r["sentence"] for r in many[-3:]])
    np.testing.assert_array_equal(data.train.source.inputs[-3:], want)


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ({}, {"fields": ("text",)}, "no field 'text'; .*valid: label, sentence"),
        ({}, {"fields": ()}, r"one or two fields, got \(\)"),
        ({}, {"tokenizer": "word"}, "unknown tokenizer 'word'"),
        ({}, {"too_long": "drop"}, "unknown data.text.too_long 'drop'"),
        ({}, {"too_long": "error"}, "1 texts of the test part .* more than 10 tokens"),
        ({}, {"buckets": (8, 4)}, "ascending lengths below max_length 10"),
        ({}, {"buckets": (10,)}, "ascending lengths below max_length 10"),
        ({}, {"max_length": 3}, "3 tokens frame a text; expected at least 4"),
        ({}, {"stop_words": "englsh"}, "did you mean 'english'"),
        ({}, {"pad": "[PAD]"}, "data.text.pad is of a given vocabulary"),
        ({}, {"vocabulary": "nowhere"}, "vocabulary 'nowhere' does not exist"),
        (
            {"dev": [row("fine", "goof")]},
            {},
            "example 0 of split 'dev' .* label 'goof', .* did you mean 'good'",
        ),
        (
            {"dev": [row(7, "good")]},
            {},
            "example 0 of .*: 'sentence' is no text, got 7",
        ),
        ({"dev": [row(b"\xff", "good")]}, {}, "'sentence' is no UTF-8"),
        ({"dev": []}, {}, "the dev split of data set 'films' is empty"),
    ],
)
def test_mistakes_are_one_line(source, changes, message):
    with pytest.raises(errors.UserError, match=message) as e:
        load(opened(**source), **changes)
    assert "\n" not in str(e.value)


@pytest.mark.slow  # reads 10,000 texts and trains a vocabulary: 3 s
def test_sst2(pytestconfig):
    root = pytestconfig.rootpath
    shared = pathlib.Path(os.environ.get("PARE_SHARED", root.parent / "shared"))
    folder = shared / "data" / "sst2"
    if not folder.exists():
        pytest.skip(f"no SST-2 in {folder}")
    read = {}
    files = {"train": "train", "dev": "dev", "test": "test-labeled"}
    for split, name in files.items():
        lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").split("\n")[1:]
        read[split] = [row(*line.rsplit("\t", 1)) for line in lines[:10_000] if line]
    names = parts.Names("train", "dev", "test", 0.1, 0.1)
    data = load(
        opened(**read), names, 2**24, size=4000, max_length=64, buckets=(16, 32)
    )
    assert [len(part) for part in data[1:4]] == [10_000, 872, 1_821]
    counts = data.counts
    assert "texts that are empty in train" not in counts
    assert counts["texts that were cut in train"] < 0.01 * 10_000
    assert counts.get("unknown tokens in test", 0) < 1e-3 * counts["tokens in test"]
    # Of one length, 64 places each, most would be padding.
    assert counts["places of padding in train"] < 0.2 * 64 * 10_000
