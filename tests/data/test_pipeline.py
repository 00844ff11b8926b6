import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.data import augment, examples, normalise, pipeline, splits


def on_device(train, batch_size, seed=0):
    return pipeline.OnDevice(train, batch_size=batch_size, seed=seed, sharding=None)


def loader(train, batch_size, seed=0):
    return pipeline.Loader(train, batch_size=batch_size, seed=seed, threads=2, ahead=3)


FEEDS = {"OnDevice": on_device, "Loader": loader}


def labels_of(feed, steps):
    """Returns the labels [steps, batch] of the next steps, by way of `take`."""
    rows = feed.next(steps)
    take = jax.vmap(type(feed).take, in_axes=(None, 0))
    return np.asarray(take(feed.resident, rows)["label"])


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("size, batch", [(12, 4), (10, 4), (5, 8), (7, 7)])
def test_each_example_once_an_epoch(make, size, batch, numbered):
    feed = make(numbered(size), batch)
    stream = np.concatenate([labels_of(feed, n).ravel() for n in (1, 3, size - 4)])
    assert len(stream) == size * batch
    epochs = stream.reshape(batch, size)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(size), (batch, 1)))
    assert len({tuple(e) for e in epochs}) > 1  # each epoch is shuffled anew


@given(st.integers(1, 9), st.integers(1, 12), st.lists(st.integers(1, 4), max_size=5))
def test_on_device_is_its_definition(size, batch, calls):
    labels = np.arange(size, dtype=np.int32)
    images = np.zeros((size, 1, 1, 1), np.uint8)
    source = examples.Arrays({"input": images, "label": labels})
    feed = on_device(splits.Train("n", source, size, (1, 1, 1)), batch, seed=5)
    epochs = [
        np.random.default_rng([5, e]).permutation(size)
        for e in range(20 * batch // size + 1)
    ]
    stream = np.concatenate(epochs)
    step = 0
    for steps in calls:
        got = feed.next(steps)["index"]
        want = stream[step * batch : (step + steps) * batch].reshape(steps, batch)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == np.int32
        step += steps


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
def test_resumes_at_any_step(make, numbered):
    train = numbered(10)
    feed = make(train, 4, seed=7)
    states, batches = [], []
    for _ in range(8):
        states.append(json.dumps(feed.state()))
        batches.append(labels_of(feed, 1))
    for i, state in enumerate(states):
        again = make(train, 4, seed=7)
        again.restore(json.loads(state))
        assert json.dumps(again.state()) == state
        np.testing.assert_array_equal(labels_of(again, 8 - i)[:, None], batches[i:])
    feed.restore(json.loads(states[2]))  # also backwards, in the same feed
    np.testing.assert_array_equal(labels_of(feed, 6)[:, None], batches[2:])


FRESH = """
import json, sys
import numpy as np
from lib.data import examples, pipeline, splits
labels = np.arange(10, dtype=np.int32)
source = examples.Arrays({"input": np.zeros((10, 1, 1, 1), np.uint8), "label": labels})
train = splits.Train("n", source, 10, (1, 1, 1))
feed = pipeline.Loader(train, batch_size=4, seed=7, threads=2, ahead=3)
feed.restore(json.loads(sys.argv[1]))
print(feed.next(5)["label"].tolist())
"""


@pytest.mark.slow  # starts Python and imports JAX and Grain: 2 s
def test_loader_resumes_in_a_fresh_process(numbered, pytestconfig):
    feed = loader(numbered(10), 4, seed=7)
    feed.next(3)
    state = json.dumps(feed.state())
    here = feed.next(5)["label"].tolist()
    there = subprocess.run(
        [sys.executable, "-c", FRESH, state],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(there.stdout) == here


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
def test_order_depends_on_the_seed(make, numbered):
    streams = [labels_of(make(numbered(30), 30, s), 1).tolist() for s in (1, 1, 2)]
    assert streams[0] == streams[1] != streams[2]


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
def test_refuses_the_state_of_another_stream(make, numbered):
    state = make(numbered(10), 4).state()
    for other in (make(numbered(11), 4), make(numbered(10), 5)):
        with pytest.raises(errors.UserError, match="saved data position"):
            other.restore(state)
    with pytest.raises(errors.UserError, match="seed=0, this run has seed=3"):
        make(numbered(10), 4, seed=3).restore(state)


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
def test_bad_settings(make, numbered):
    with pytest.raises(TypeError, match="Train"):
        make(numbered(4, splits.Test), 2)
    with pytest.raises(errors.UserError, match="batch_size"):
        make(numbered(4), 0)
    with pytest.raises(errors.UserError, match="seed"):
        make(numbered(4), 2, seed=-1)


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
def test_batch_of_a_step(make, numbered):
    train = numbered(10)
    feed = make(train, 4)
    traces = []

    @jax.jit
    def step(resident, rows):
        traces.append(1)
        raw = feed.take(resident, rows)
        return pipeline.preparation(normalisation, None)(None, raw)

    normalisation = normalise.measure(train)
    rows = feed.next(3)
    for i in range(3):
        batch = step(feed.resident, jax.tree.map(lambda x, i=i: x[i], rows))
        types = {k: (v.dtype.name, v.shape) for k, v in batch.items()}
        assert types == {
            "input": ("float32", (4, 2, 2, 1)),
            "label": ("int32", (4,)),
            "weight": ("float32", (4,)),
        }
        want = (np.asarray(batch["label"]) - 4.5) / np.arange(10).std()
        got = np.asarray(batch["input"])
        np.testing.assert_allclose(
            got, np.tile(want[:, None, None, None], (2, 2, 1)), 1e-5
        )
        np.testing.assert_array_equal(batch["weight"], 1)
    assert len(traces) == 1


def test_feed_chooses_by_where_the_images_are(numbered):
    settings = {"batch_size": 2, "seed": 0, "threads": 1, "ahead": 1}
    assert isinstance(pipeline.feed(numbered(4), **settings), pipeline.OnDevice)


def test_resident_arrays_may_be_replicated_and_rows_sharded(numbered):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec = jax.sharding.PartitionSpec
    everywhere = jax.sharding.NamedSharding(mesh, spec())
    rows_apart = jax.sharding.NamedSharding(mesh, spec("data"))
    settings = {"batch_size": 16, "seed": 0, "threads": 1, "ahead": 1}
    feed = pipeline.feed(numbered(20), **settings, sharding=everywhere)
    index = feed.next(1)["index"][0]
    rows = {"index": jax.device_put(index, rows_apart)}
    batch = jax.jit(feed.take)(feed.resident, rows)
    np.testing.assert_array_equal(batch["label"], index)


@pytest.mark.slow
def test_augmentation_comes_before_normalisation(numbered):
    normalisation = normalise.Normalisation((2.0,), (4.0,))
    move = augment.shift(pixels=2, fill="zero")
    prepare = pipeline.preparation(normalisation, move)
    raw = {"input": np.full((64, 2, 2, 1), 10, np.uint8)}
    images = np.asarray(prepare(jax.random.key(0), raw)["input"])
    assert set(np.unique(images)) == {-0.5, 2.0}  # (0 - 2) / 4 and (10 - 2) / 4
    want = prepare(jax.random.key(0), {"input": raw["input"][32:]}, 32)["input"]
    np.testing.assert_array_equal(images[32:], want)


@pytest.mark.slow
def test_mixing_comes_after_the_inputs_and_is_the_same_on_many_devices():
    normalisation = normalise.Normalisation((2.0,), (4.0,))
    mixing = augment.mixup(alpha=1.0, probability=1.0, classes=2)
    prepare = pipeline.preparation(normalisation, None, mixing)
    raw = {
        "input": np.tile(np.uint8([2, 6]), 8).reshape(16, 1, 1, 1),  # inputs 0 and 1
        "label": np.tile(np.int32([0, 1]), 8),
        "weight": np.ones(16, np.float32),
    }
    key = jax.random.key(0)
    whole = jax.jit(prepare)(key, raw, 0)
    np.testing.assert_allclose(
        whole["input"][:, 0, 0, 0], whole["target"][:, 1], atol=1e-6
    )
    assert len(np.unique(whole["target"])) > 16
    parts = {k: v.reshape(8, 2, *v.shape[1:]) for k, v in raw.items()}
    part = jax.pmap(
        lambda raw: prepare(key, raw, 2 * jax.lax.axis_index("data")), axis_name="data"
    )
    for name, value in part(parts).items():
        joined = np.asarray(value).reshape(whole[name].shape)
        np.testing.assert_allclose(joined, whole[name], atol=1e-6)


@pytest.mark.parametrize("kind", [splits.Train, splits.Validation, splits.Test])
@pytest.mark.parametrize("size, batch", [(10, 4), (8, 4), (3, 5), (4, 1)])
def test_eval_batches_count_each_example_once(kind, size, batch, numbered):
    batches = list(pipeline.eval_batches(numbered(size, kind), batch))
    assert all(b["input"].shape == (batch, 2, 2, 1) for b in batches)
    label = np.concatenate([b["label"] for b in batches])
    weight = np.concatenate([b["weight"] for b in batches])
    assert weight.dtype == np.float32 and weight.sum() == size
    np.testing.assert_array_equal(label[weight == 1], np.arange(size))
    np.testing.assert_array_equal(label[weight == 0], size - 1)
    total = sum(jnp.sum(b["weight"] * b["label"]) for b in batches)
    assert total == size * (size - 1) / 2


def test_eval_batches_refuse_no_batch(numbered):
    with pytest.raises(errors.UserError, match="batch_size"):
        next(pipeline.eval_batches(numbered(3), 0))


def test_loader_reports_a_bad_image(numbered):
    class Rows(list):
        def __getitems__(self, indices):
            return [self[i] for i in indices]

    rows = Rows({"image": np.zeros((2, 2, 1), np.uint8), "label": 0} for _ in range(6))
    rows[4]["image"] = np.zeros((2, 3, 1), np.uint8)
    table = examples.Table(
        name="made",
        split="train",
        rows=rows,
        decode=lambda row: row["image"],
        label=lambda row: row["label"],
        field="label",
        shape=(2, 2, 1),
        dtype=np.uint8,
        classes=2,
    )
    source = examples.Records(table, np.arange(6))
    feed = loader(splits.Train("made", source, 2, (2, 2, 1)), 2)
    with pytest.raises(
        errors.UserError, match="example 4 of split 'train' of data set"
    ):
        feed.next(3)
