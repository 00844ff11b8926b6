"""Trained vocabularies: the same in every process, and what was promised of each."""

import subprocess
import sys

import pytest

from lib import errors
from lib.data.text import training

TEXTS = [
    "The cat sat on the mat, didn't it?",
    "A café in Paris: the best coffee of the town.",
    "walking walked walks; talking talked talks",
    "she sells sea shells [PAD] by the sea shore",
] * 3
SIZES = {"wordpiece": 120, "bpe": 300, "unigram": 60}


@pytest.fixture(scope="module")
def trained():
    return {
        kind: training.train(kind, TEXTS, size=size, lowercase=True)
        for kind, size in SIZES.items()
    }


@pytest.mark.parametrize("kind", SIZES)
def test_ids_and_frame(trained, kind):
    tokenizer = trained[kind]
    assert tokenizer.get_vocab_size() <= SIZES[kind]
    assert [tokenizer.token_to_id(t) for t in training.SPECIAL] == [0, 1, 2, 3]
    one = tokenizer.encode("walked").ids
    assert (one[0], one[-1]) == (2, 3) and not {0, 1, 2, 3} & set(one[1:-1])
    two = tokenizer.encode("walked", "talked")
    assert two.ids == one + tokenizer.encode("talked").ids[1:]
    assert two.type_ids == [0] * len(one) + [1] * (len(two.ids) - len(one))
    assert tokenizer.encode("WALKED Café").ids == tokenizer.encode("walked cafe").ids


@pytest.mark.parametrize("kind", SIZES)
def test_frequent_words_are_few_tokens_and_capitals_may_stay(trained, kind):
    assert len(trained[kind].encode("the sea").ids) <= 5
    cased = training.train(kind, TEXTS, size=SIZES[kind], lowercase=False)
    assert cased.encode("The").ids != cased.encode("the").ids


@pytest.mark.parametrize("kind", SIZES)
def test_what_was_not_seen(trained, kind):
    unknown = trained[kind].encode("\u4e2d").ids[1:-1]
    assert (1 in unknown) == (kind != "bpe")  # bytes are all known


@pytest.mark.parametrize("kind", SIZES)
def test_no_text_is_a_special_token(trained, kind):
    tokenizer = trained[kind]
    tokenizer.encode_special_tokens = True
    found = tokenizer.encode("[PAD] a [SEP][CLS]").ids
    assert found.count(0) == 0 and found.count(2) == found.count(3) == 1


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("wordpeice", 99, "unknown tokenizer 'wordpeice'; did you mean 'wordpiece'"),
        ("wordpiece", 20, "data.text.size is 20, and single characters take"),
        ("bpe", 259, "take 260 tokens"),
        ("unigram", 10, "of 6 pieces cannot hold"),
    ],
)
def test_mistakes(kind, size, message):
    with pytest.raises(errors.UserError, match=message) as e:
        training.train(kind, TEXTS, size=size, lowercase=True)
    assert "\n" not in str(e.value)


PROCESS = """
import hashlib
from lib.data.text import training
texts = {texts!r}
for kind, size in {sizes!r}.items():
    found = training.train(kind, texts, size=size, lowercase=True).to_str()
    print(hashlib.sha256(found.encode()).hexdigest())
"""


@pytest.mark.slow  # starts Python three times: 3 s
def test_the_same_in_every_process(pytestconfig):
    # Each process has hash tables of another order.
    texts = [f"{a}{b}{c}er {c}{a}ing" for a in "abcd" for b in "xyz" for c in "aeiou"]
    code = PROCESS.format(texts=texts, sizes=SIZES)
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=pytestconfig.rootpath,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(3)
    ]
    assert len(runs[0].split()) == 3 and len(set(runs)) == 1
