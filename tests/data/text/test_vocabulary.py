"""Vocabularies that are given: what is taken, and one line for what is not."""

import pytest

from lib import errors
from lib.data.text import training, vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a `tokenizer.json`: byte pairs, small letters."""
    folder = tmp_path_factory.mktemp("pretrained")
    trained = training.train("bpe", ["some words"], size=270, lowercase=True)
    trained.save(str(folder / "tokenizer.json"))
    (folder / "damaged.json").write_text('{"version": "1.0"}')
    (folder / "empty").mkdir()
    (folder / "words.txt").write_text("the\ncat\n[PAD]\n")
    (folder / "twice.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\na\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    return folder


def read(path, kind="bpe", lowercase=True):
    return vocabulary.read(str(path), kind=kind, lowercase=lowercase)


def test_a_folder_and_its_file_are_the_same(folder):
    by_folder, by_file = read(folder), read(folder / "tokenizer.json")
    assert by_folder.to_str() == by_file.to_str()
    assert vocabulary.pad_of(by_file, "", "p") == 0
    assert vocabulary.pad_of(by_file, "[SEP]", "p") == 3


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nothing.txt", {}, "vocabulary '.*nothing.txt' does not exist"),
        ("empty", {}, "is a folder without tokenizer.json or vocab.txt"),
        ("damaged.json", {}, "is no tokenizer: "),
        ("tokenizer.json", {"kind": "wordpiece"}, "is BPE's, expected WordPiece's"),
        ("tokenizer.json", {"kind": "words"}, "unknown tokenizer 'words'"),
        ("tokenizer.json", {"lowercase": False}, "makes small letters of capitals; "),
        ("words.txt", {"kind": "wordpiece"}, r"lacks \[UNK\], \[CLS\], \[SEP\]"),
        ("twice.txt", {"kind": "wordpiece"}, "has 1 tokens twice"),
        ("binary.txt", {"kind": "wordpiece"}, "cannot be read"),
    ],
)
def test_wrong_files(folder, name, changes, message):
    with pytest.raises(errors.UserError, match=message) as e:
        read(folder / name, **changes)
    assert "\n" not in str(e.value)


def test_capitals_and_padding_that_are_not_there(folder):
    cased = training.train("bpe", ["Some"], size=270, lowercase=False)
    cased.normalizer = None
    cased.save(str(folder / "cased.json"))
    with pytest.raises(errors.UserError, match="keeps capitals; set .*=False"):
        read(folder / "cased.json")
    assert read(folder / "cased.json", lowercase=False).get_vocab_size() > 256
    with pytest.raises(errors.UserError, match="has no '<eos>'; name one of its"):
        vocabulary.pad_of(cased, "<eos>", "p")
