"""Three parts of a source: no example is in two of them, and none is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data import examples, parts


def source(numbers, classes=2):
    """Returns examples of these numbers; the class of each is its remainder."""
    numbers = np.asarray(numbers)
    labels = (numbers % classes).astype(np.int32)
    return examples.Arrays({"input": numbers[:, None], "label": labels})


def numbers_of(part):
    return part.fields["input"][:, 0].tolist()


@given(st.integers(20, 120), st.floats(0.1, 0.4), st.floats(0.1, 0.4))
def test_what_is_drawn_is_a_share_of_the_whole_train_split(total, validation, test):
    names = parts.Names("train", "", "", validation, test)
    drawn = parts.divide("made", names, {"train": source(range(total))}.get)
    train, held_out, tested = map(numbers_of, drawn)
    # The validation part is a share of all, not of what the test part has left.
    assert len(held_out) == round(total * validation)
    assert len(tested) == round(total * test)
    assert sorted(train + held_out + tested) == list(range(total))
    for part in (held_out, tested):
        assert abs(sum(n % 2 for n in part) - len(part) / 2) <= 1


def test_official_splits_are_taken_whole_and_as_they_are():
    official = {
        "fit": source(range(10)),
        "dev": source(range(10, 14)),
        "eval": source(range(14, 20)),
    }
    names = parts.Names("fit", "dev", "eval", 0.5, 0.5)
    train, held_out, tested = parts.divide("made", names, official.get)
    assert numbers_of(train) == list(range(10))
    assert numbers_of(held_out) == [10, 11, 12, 13]
    assert numbers_of(tested) == list(range(14, 20))


def test_the_same_examples_are_drawn_in_every_run():
    names = parts.Names("train", "", "", 0.25, 0.25)
    read = {"train": source(range(40))}.get
    once, again = (parts.divide("made", names, read) for _ in range(2))
    assert [*map(numbers_of, once)] == [*map(numbers_of, again)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "", "a", 0.5, 0.5), "cannot be its test or validation"),
        (("a", "a", "", 0.5, 0.5), "cannot be its test or validation"),
        (("a", "b", "b", 0.5, 0.5), "nor one split both"),
        (("a", "", "", 0.5, 0.5), "leave no training example"),
        (("a", "", "b", 1.5, 0.5), "validation_fraction must lie between 0 and 1"),
        (("a", "b", "", 0.5, 0.0), "test_fraction must lie between 0 and 1"),
    ],
)
def test_mistakes(names, message):
    read = {"a": source(range(10)), "b": source(range(10, 20))}.get
    with pytest.raises(errors.UserError, match=message):
        parts.divide("made", parts.Names(*names), read)
