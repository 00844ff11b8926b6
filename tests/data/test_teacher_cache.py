"""A teacher's logits on disk: what is exact, what is spread, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors
from lib.data import examples, pipeline, splits, teacher_cache

CLASSES, EXAMPLES = 7, 20
LOGITS = np.random.default_rng(0).normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
LABEL = {"k": 3, "examples": EXAMPLES, "teachers": ["a"]}


def split():
    fields = {
        "input": np.arange(EXAMPLES, dtype=np.uint8)[:, None],
        "label": np.arange(EXAMPLES, dtype=np.int32) % CLASSES,
    }
    return splits.Train("toy", examples.Arrays(fields), CLASSES, (1,))


class OnDisk:
    """The same examples as a source that is not in memory."""

    def __init__(self, source):
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        return self._source[index]

    def gather(self, indices):
        return self._source.gather(indices)


def rows(k):
    for start in range(0, EXAMPLES, 8):
        yield jax.device_get(teacher_cache.top(jnp.asarray(LOGITS[start:][:8]), k))


@pytest.mark.slow
def test_kept_probabilities_are_exact_and_the_rest_is_spread_evenly():
    kept = teacher_cache.top(jnp.asarray(LOGITS), 3)
    got = jax.nn.softmax(teacher_cache.dense(kept, CLASSES))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    largest = np.argsort(-p, axis=-1)
    for i in range(EXAMPLES):
        first, others = largest[i, :3], largest[i, 3:]
        np.testing.assert_allclose(got[i, first], p[i, first], rtol=1e-5)
        np.testing.assert_allclose(got[i, others], p[i, others].mean(), rtol=1e-5)


@pytest.mark.parametrize("k", [CLASSES, CLASSES + 3])
def test_of_all_classes_the_logits_come_back(k):
    kept = teacher_cache.top(jnp.asarray(LOGITS), k)
    np.testing.assert_array_equal(teacher_cache.dense(kept, CLASSES), LOGITS)
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), kept)
    found = teacher_cache.shapes(EXAMPLES, k, CLASSES)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["in memory", "on disk"])
def test_each_example_comes_with_its_logits_through_a_feed(tmp_path, kind):
    path = tmp_path / "new" / "cache"
    assert teacher_cache.write(path, LABEL, rows(3)) == EXAMPLES
    assert [p.name for p in path.parent.iterdir()] == ["cache"]
    train = split()
    if kind == "on disk":
        train = splits.Train("toy", OnDisk(train.source), CLASSES, (1,))
    joined = teacher_cache.Cache(path, LABEL).attach(train)
    feed = pipeline.feed(joined, batch_size=6, seed=1, threads=2, ahead=2)
    assert isinstance(feed, pipeline.Loader) == (kind == "on disk")
    want = teacher_cache.top(jnp.asarray(LOGITS), 3)
    for _ in range(4):  # beyond an epoch
        taken = feed.take(feed.resident, jax.tree.map(lambda r: r[0], feed.next(1)))
        at = np.asarray(taken["input"])[:, 0]
        for name in teacher_cache.FIELDS:
            np.testing.assert_array_equal(taken[name], want[name][at])
            assert taken[name].dtype == want[name].dtype
    assert len(joined) == EXAMPLES
    every = joined.source.gather(np.arange(EXAMPLES))
    np.testing.assert_array_equal(every["teacher_indices"], want["teacher_indices"])


@pytest.mark.slow
def test_another_cache_is_refused_in_one_line(tmp_path):
    path = tmp_path / "cache"
    teacher_cache.write(path, LABEL, rows(3))
    for change, message in (
        ({"teachers": ["b"]}, r"its teachers is \['a'\], expected \['b'\]"),
        ({"k": 2}, "its k is 3, expected 2"),
        ({"data": "x"}, "its data is nothing, expected x"),
    ):
        with pytest.raises(errors.UserError, match=message) as caught:
            teacher_cache.Cache(path, {**LABEL, **change})
        assert "\n" not in str(caught.value)
    later = {"k": 2, "teachers": ["b"], "data": "x"}
    teacher_cache.Cache(path, {**LABEL, "teachers": ["b"]}, unknown=("teachers",))
    with pytest.raises(errors.UserError, match="its k is 3, expected 2"):
        teacher_cache.Cache(path, {**LABEL, **later}, unknown=("teachers",))


@pytest.mark.slow
def test_records_of_another_size_are_damage(tmp_path):
    """What says that it keeps 3 logits of an example keeps 3."""
    path = tmp_path / "cache"
    teacher_cache.write(path, LABEL, rows(2))
    with pytest.raises(errors.UserError, match="is damaged") as caught:
        teacher_cache.Cache(path, LABEL).gather(np.zeros(1, np.int64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["cut", "garbled", "none"])
def test_a_damaged_cache_is_refused_in_one_line(tmp_path, how):
    path = tmp_path / "cache"
    teacher_cache.write(path, LABEL, rows(3))
    data = bytearray(path.read_bytes())
    if how == "garbled":
        for i in range(200, len(data), 50):
            data[i] ^= 255
    path.write_bytes({"cut": data[: len(data) // 2], "none": b""}.get(how, data))
    with pytest.raises(errors.UserError, match="is damaged") as caught:
        teacher_cache.Cache(path, LABEL).attach(split())
    assert "\n" not in str(caught.value)


def test_a_cache_that_is_interrupted_leaves_no_file(tmp_path):
    def broken():
        yield from rows(3)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        teacher_cache.write(tmp_path / "cache", LABEL, broken())
    assert list(tmp_path.iterdir()) == []


def test_splits_are_told_apart():
    one, other = split(), split()
    assert teacher_cache.fingerprint(one) == teacher_cache.fingerprint(other)
    other.source.fields["input"][3] = 99
    assert teacher_cache.fingerprint(one) != teacher_cache.fingerprint(other)
