"""Batches of one length: every example once an epoch, and exactly resumed."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data import bucketed, buckets, examples, pipeline, splits
from lib.train import parallel

LENGTHS = (2, 4, 8)


def texts_of(lengths, kind=splits.Train):
    """Example i has `lengths[i]` tokens, and label i."""
    lengths = np.asarray(lengths)
    ids = np.where(np.arange(8) < lengths[:, None], 1, 0).astype(np.uint16)
    labels = np.arange(len(lengths), dtype=np.int32)
    source = examples.Arrays({"input": ids, "label": labels})
    return kind("t", source, len(labels), (8,), buckets.of(ids, 0, LENGTHS))


def one_by_one(lengths, batch, seed, epochs):
    """The definition, an example at a time: yields (length, labels)."""
    waiting = collections.defaultdict(list)
    for epoch in range(epochs):
        for i in np.random.default_rng([seed, epoch]).permutation(len(lengths)):
            length = next(n for n in LENGTHS if lengths[i] <= n)
            waiting[length].append(int(i))
            if len(waiting[length]) == batch:
                yield length, waiting.pop(length)


lengths_of_texts = st.lists(st.integers(0, 8), min_size=1, max_size=12)


@given(lengths_of_texts, st.integers(1, 5), st.integers(0, 3))
def test_it_is_its_definition(lengths, batch, seed):
    feed = bucketed.Bucketed(texts_of(lengths), batch_size=batch, seed=seed)
    for length, labels in one_by_one(lengths, batch, seed, epochs=6):
        rows = feed.next(1)
        assert rows["input"].shape == (1, batch, length)
        assert rows["label"].tolist() == [labels]
        assert rows["weight"].tolist() == [[1.0] * batch]
        # Nothing of a text was cut off.
        assert rows["input"].sum() == sum(lengths[i] for i in labels)


@given(lengths_of_texts, st.integers(1, 5))
def test_no_example_is_dropped_or_comes_too_often(lengths, batch):
    train = texts_of(lengths)
    feed = bucketed.Bucketed(train, batch_size=batch, seed=1)
    seen = np.zeros(len(lengths), int)
    for _ in range(30):
        np.add.at(seen, feed.next(1)["label"][0], 1)
        for _, members in train.buckets.members():
            # What waits is less than a batch, of at most as many epochs.
            assert np.ptp(seen[members]) <= -(-batch // len(members))


def test_resumes_at_any_step():
    train = texts_of([1, 2, 3, 8, 8, 4, 2, 1, 7, 5, 2])
    feed = bucketed.Bucketed(train, batch_size=4, seed=7)
    states, labels = [], []
    for _ in range(12):
        states.append(json.dumps(feed.state()))
        labels.append(feed.next(1)["label"])
    for i, state in enumerate(states):
        again = bucketed.Bucketed(train, batch_size=4, seed=7)
        again.restore(json.loads(state))
        assert json.dumps(again.state()) == state
        np.testing.assert_array_equal(
            [again.next(1)["label"] for _ in range(12 - i)], labels[i:]
        )
    feed.restore(json.loads(states[2]))  # also backwards, in the same feed
    np.testing.assert_array_equal(feed.next(1)["label"], labels[2])


def test_mistakes():
    train = texts_of([1, 5, 8, 2])
    feed = pipeline.feed(train, batch_size=2, seed=0, threads=1, ahead=1)
    assert isinstance(feed, bucketed.Bucketed)
    with pytest.raises(ValueError, match="one step at a time, not 3"):
        feed.next(3)
    other = bucketed.Bucketed(texts_of([1, 5, 8, 8]), batch_size=2, seed=0)
    with pytest.raises(errors.UserError, match=r"bucket_2=1, this run has bucket_2=2"):
        feed.restore(other.state())
    whole = splits.Train("t", train.source, 4, (8,))
    with pytest.raises(TypeError, match="has buckets"):
        bucketed.Bucketed(whole, batch_size=2, seed=0)
    plain = pipeline.feed(whole, batch_size=2, seed=0, threads=1, ahead=1)
    with pytest.raises(errors.UserError, match=r"bucket_2=\(none\), this run has"):
        feed.restore(plain.state())


@given(lengths_of_texts, st.integers(1, 5))
def test_evaluation_counts_each_example_once(lengths, batch):
    split = texts_of(lengths, splits.Test)
    seen = []
    for raw in pipeline.eval_batches(split, batch, cut=True):
        assert raw["input"].shape[0] == batch
        kept = raw["weight"] > 0
        seen += raw["label"][kept].tolist()
        inside = [lengths[i] for i in raw["label"][kept]]
        assert raw["input"][kept].sum() == sum(inside)
        assert raw["input"].shape[1] == min(n for n in LENGTHS if n >= max(inside))
    assert sorted(seen) == list(range(len(lengths)))
    whole = list(pipeline.eval_batches(split, batch))
    assert {raw["input"].shape for raw in whole} == {(batch, 8)}
    flat = np.concatenate([raw["label"] for raw in whole])[: len(lengths)]
    assert flat.tolist() == list(range(len(lengths)))


@pytest.mark.parametrize("by", parallel.PARALLEL)
def test_devices_share_batches_of_every_length(by):
    def advance(state, rows, fixed, axis):
        raw = bucketed.Bucketed.take(fixed, rows)
        count = jnp.sum(raw["input"].astype(jnp.int32))
        if axis:
            count = jax.lax.psum(count, axis)
        return state + count, {"length": jnp.float32(raw["input"].shape[1])}

    lengths = [1, 2, 3, 8, 8, 4, 2, 1] * 8
    feed = bucketed.Bucketed(texts_of(lengths), batch_size=16, seed=0)
    runner = parallel.PARALLEL[by](advance)
    state, fixed = runner.put(jnp.int32(0)), runner.put({})
    want, met = 0, set()
    for _ in range(6):
        rows = feed.next(1)
        want += int(rows["input"].sum())
        state, metrics = runner.run(state, rows, fixed)
        met.add(float(metrics["length"][0]))
        assert metrics["length"].tolist() == [rows["input"].shape[2]]
    assert int(runner.get(state)) == want and len(met) > 1
