"""Some classes of a data set."""

import numpy as np
import pytest

from lib import errors


def test_two_digits_are_a_data_set_of_their_own(load, digits):
    two = load("digits", only=("7", "1"))
    assert (two.classes, two.names) == (2, ("7", "1"))
    for part in ("train", "validation", "test"):
        assert set(getattr(two, part).source.fields["label"]) == {0, 1}
    # The official test split of the digits has its classes in proportion.
    sevens = (two.test.source.fields["label"] == 0).sum()
    assert sevens == (digits.test.source.fields["label"] == 7).sum()
    want = digits.test.source.fields["input"][digits.test.source.fields["label"] == 1]
    ones = two.test.source.fields["label"] == 1
    np.testing.assert_array_equal(two.test.source.fields["input"][ones], want)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (("7", "11"), "has no class '11'; did you mean '1'"),
        (("7",), "at least two different classes"),
        (("7", "7"), "at least two different classes"),
    ],
)
def test_mistakes(load, only, message):
    with pytest.raises(errors.UserError, match=message):
        load("digits", only=only)


def test_a_field_that_is_not_there(load):
    with pytest.raises(errors.UserError, match="no field 'lable'"):
        load("digits", only=("1", "2"), label="lable")
