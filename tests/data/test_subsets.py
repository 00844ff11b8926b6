"""Folds, bootstraps and growing sets against scikit-learn, a feed, and counting."""

import collections
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data import buckets, dataset, examples, pipeline, splits, subsets


def split(kind, count, seed, **fields):
    rng = np.random.default_rng(seed)
    labels = np.arange(count).astype(np.int32) % 3
    inputs = rng.integers(0, 255, (count, 2, 2, 1), np.uint8)
    source = examples.Arrays({"input": inputs, "label": labels})
    return kind("toy", source, 3, (2, 2, 1), **fields)


def data(**fields):
    parts = [split(splits.Train, 12, 0, **fields), split(splits.Validation, 6, 1)]
    test = split(splits.Test, 9, 2)
    return dataset.Dataset("toy", *parts, test, 3, (2, 2, 1), None)


def test_a_pool_is_training_and_validation_examples_and_no_other():
    whole = data()
    pool = subsets.pool(whole, "a test")
    assert pool.train.tolist() == [*range(12)]
    assert pool.validation.tolist() == [*range(12, 18)]
    for part, place in ((whole.train, pool.train), (whole.validation, pool.validation)):
        np.testing.assert_array_equal(
            pool.fields["input"][place], part.source.fields["input"]
        )


def test_a_test_split_or_data_elsewhere_is_refused():
    whole = data()
    with pytest.raises(errors.UserError, match="a test may not look at the test split"):
        subsets.pool(whole._replace(validation=whole.test), "a test")
    bucketed = buckets.Buckets((2,), np.zeros(12, np.int32))
    with pytest.raises(errors.UserError, match="of one length, got data set 'toy'"):
        subsets.pool(data(buckets=bucketed), "a test")
    kept = splits.Train("toy", [0], 3, (2, 2, 1))
    with pytest.raises(errors.UserError, match="expected data in memory"):
        subsets.pool(whole._replace(train=kept), "a test")


def test_noise_makes_a_share_of_the_labels_wrong():
    pool = subsets.pool(data(), "a test")
    found = subsets.noisy(pool, 0.5, 3, seed=1)
    other = found.label != pool.label
    assert other[pool.train].sum() == 6 and other[pool.validation].sum() == 3
    assert {*found.label} <= {0, 1, 2}
    assert (subsets.noisy(pool, 1.0, 3, 0).label != pool.label).all()
    np.testing.assert_array_equal(subsets.noisy(pool, 0.0, 3, 0).label, pool.label)
    with pytest.raises(errors.UserError, match="from 0 to 1, got 2"):
        subsets.noisy(pool, 2, 3, 0)


@pytest.mark.parametrize("stratified", [True, False])
def test_folds_hold_out_each_example_once_a_repeat(stratified):
    labels = np.repeat(np.arange(4), (9, 10, 11, 13))
    how = dict(count=4, repeats=2, stratified=stratified, seed=3)
    folds = subsets.folds(labels, **how)
    assert [(f.repeat, f.fold) for f in folds] == [
        (r, k) for r in range(2) for k in range(4)
    ]
    for repeat in range(2):
        held = np.concatenate([f.held_out for f in folds if f.repeat == repeat])
        assert sorted(held) == [*range(43)]
    for fold in folds:
        assert not {*fold.train} & {*fold.held_out}
        assert len(fold.train) + len(fold.held_out) == 43
        if stratified:
            counts = np.bincount(labels[fold.held_out])
            assert (np.abs(counts - np.array((9, 10, 11, 13)) / 4) < 1).all()
    assert not np.array_equal(folds[0].held_out, folds[4].held_out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, "at least 2 folds and 1 repeat, got 1 and 1"),
        ({"repeats": 0}, "at least 2 folds and 1 repeat, got 4 and 0"),
        ({"count": 10}, "10 folds of 9 examples of the smallest class"),
        ({"count": 44, "stratified": False}, "44 folds of 43 examples there are"),
    ],
)
def test_folds_that_cannot_be_are_one_line(change, message):
    labels = np.repeat(np.arange(4), (9, 10, 11, 13))
    how = dict(count=4, repeats=1, stratified=True, seed=0) | change
    with warnings.catch_warnings(), pytest.raises(errors.UserError, match=message):
        warnings.simplefilter("error")
        subsets.folds(labels, **how)


def test_rows_are_those_of_a_feed_of_just_these_examples():
    members = np.array([1, 4, 5, 9, 11])
    whole = split(splits.Train, 12, 0)
    part = splits.Train("toy", whole.source.select(members), 3, (2, 2, 1))
    feed = pipeline.OnDevice(part, batch_size=4, seed=7, sharding=None)
    ours = subsets.rows(members, steps=6, batch_size=4, seed=7)["index"]
    np.testing.assert_array_equal(ours, members[feed.next(6)["index"]])
    assert ours.dtype == np.int32 and ours.shape == (6, 4)
    # An epoch is each example once, whatever the size of a batch.
    assert sorted(ours.reshape(-1)[5:10]) == members.tolist()


def test_bootstraps_draw_as_many_with_replacement():
    members = np.arange(100, 300)
    drawn = subsets.bootstraps(members, 50, 0)
    assert len(drawn) == 50
    assert all(len(one) == 200 and {*one} <= {*members} for one in drawn)
    shares = [len({*one}) / 200 for one in drawn]
    assert abs(np.mean(shares) - (1 - 1 / np.e)) < 0.01  # 63 % of them, in the mean
    again = subsets.bootstraps(members, 50, 0)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(0, 2**31),
)
def test_growing_sets_hold_the_smaller_ones_in_the_classes_proportions(labels, seed):
    labels = np.array(labels)
    members = np.arange(len(labels))
    sizes = sorted({1, len(labels) // 2 or 1, len(labels)})
    found = subsets.growing(members, labels, sizes, seed)
    assert [len(one) for one in found] == sizes
    for small, large in zip(found[:-1], found[1:], strict=True):
        assert {*small} <= {*large}
    assert found[-1].tolist() == members.tolist()
    whole = collections.Counter(labels)
    for one in found:
        for label, count in collections.Counter(labels[one]).items():
            # Each class takes turns evenly spaced in [0, 1).
            assert abs(count - whole[label] * len(one) / len(labels)) <= len(whole)
