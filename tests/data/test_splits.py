import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data import splits


def test_may_choose_refuses_test(numbered):
    train, validation = numbered(4), numbered(4, splits.Validation)
    assert splits.may_choose(train, "calibration") is train
    assert splits.may_choose(validation, "calibration") is validation
    with pytest.raises(errors.UserError) as e:
        splits.may_choose(numbered(4, splits.Test), "calibration")
    assert str(e.value) == (
        "calibration may not look at the test split of data set 'numbered'; "
        "choose on its train or validation split"
    )
    with pytest.raises(TypeError):
        splits.may_choose(numbered(4).source, "calibration")


def test_parts_are_separate_types(numbered):
    kinds = splits.Train, splits.Validation, splits.Test
    for kind in kinds:
        made = numbered(3, kind)
        assert [isinstance(made, k) for k in kinds] == [k is kind for k in kinds]
        assert len(made) == 3


@pytest.mark.parametrize("kind", [splits.Train, splits.Validation, splits.Test])
def test_empty_split(numbered, kind):
    message = f"the {kind.part} split of data set 'numbered' is empty"
    with pytest.raises(errors.UserError, match=message):
        numbered(0, kind)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, 0.001, 0.999])
def test_fraction_that_leaves_a_part_empty(fraction):
    with pytest.raises(errors.UserError, match="validation_fraction"):
        splits.count(100, fraction, "some", "validation")
    with pytest.raises(errors.UserError, match="test_fraction"):
        splits.count(100, fraction, "some", "test")
    assert splits.count(100, 0.3, "some", "test") == 30


def slow_quotas(labels, held_out):
    """Gives one example after another to the class that is furthest below its share."""
    classes = sorted(set(labels))
    given_to = dict.fromkeys(classes, 0)
    floor = {c: labels.count(c) * held_out // len(labels) for c in classes}
    for c in classes:
        given_to[c] = floor[c]
    while sum(given_to.values()) < held_out:
        behind = {
            c: labels.count(c) * held_out - given_to[c] * len(labels) for c in classes
        }
        first = max(classes, key=lambda c: (behind[c], -c))
        given_to[first] += 1
    return given_to


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_stratified(labels, data):
    held_out = data.draw(st.integers(0, len(labels)))
    kept, out = splits.stratified(np.array(labels), held_out, seed=3)
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert len(out) == held_out
    chosen = [labels[i] for i in out]
    quotas = slow_quotas(labels, held_out)
    assert {c: chosen.count(c) for c in quotas} == quotas
    again = splits.stratified(np.array(labels), held_out, seed=3)
    np.testing.assert_array_equal(kept, again[0])


def test_random_is_a_seeded_partition():
    kept, out = splits.random(100, 30, seed=1)
    assert sorted([*kept, *out]) == list(range(100)) and len(out) == 30
    np.testing.assert_array_equal(splits.random(100, 30, seed=1)[1], out)
    assert set(splits.random(100, 30, seed=2)[1]) != set(out)
