"""The front door: `load` on the digits, on a TFDS set made here, and on MNIST."""

import functools
import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from lib import errors
from lib.data import examples, pipeline, splits


def rows_of(split):
    """Returns each example's bytes, in order."""
    read = split.source.gather(np.arange(len(split)))
    return [(x.tobytes(), int(y)) for x, y in zip(*read.values(), strict=True)]


def test_digits_are_all_there_and_stratified(digits):
    parts = digits.train, digits.validation, digits.test
    assert [type(p) for p in parts] == [splits.Train, splits.Validation, splits.Test]
    assert [len(p) for p in parts] == [1197, 240, 360]
    assert (digits.classes, digits.shape) == (10, (8, 8, 1))
    images, labels = sklearn_datasets.load_digits(return_X_y=True)
    every = zip(images.astype(np.uint8), labels, strict=True)
    assert sorted(sum((rows_of(p) for p in parts), [])) == sorted(
        (x.tobytes(), int(y)) for x, y in every
    )
    share = np.bincount(labels) / len(labels)
    for part in parts:
        got = np.bincount(part.source.fields["label"])
        np.testing.assert_allclose(got, share * len(part), atol=1.01)


def test_digits_are_the_same_in_every_run(digits, load, tmp_path):
    again = load("digits", data_dir=str(tmp_path))  # prepared anew
    for part in ("train", "validation", "test"):
        assert rows_of(getattr(again, part)) == rows_of(getattr(digits, part))
    assert again.inputs == digits.inputs


def test_digits_on_disk_are_the_same_examples(digits, load):
    streamed = load("digits", resident_bytes=0)
    assert isinstance(streamed.train.source, examples.Records)
    assert rows_of(streamed.test) == rows_of(digits.test)
    both = rows_of(streamed.train) + rows_of(streamed.validation)
    held = rows_of(digits.train) + rows_of(digits.validation)
    assert len(streamed.validation) == 240 and sorted(both) == sorted(held)
    settings = {"batch_size": 32, "seed": 0, "threads": 2, "ahead": 4}
    feed = pipeline.feed(streamed.train, **settings)
    assert isinstance(feed, pipeline.Loader)
    assert feed.next(2)["input"].shape == (2, 32, 8, 8, 1)


PREPARE = """
import sys
from lib.data import sources
opened = sources.find("digits", sys.argv[1])
print(len(opened.splits["train"]))
"""


@pytest.mark.slow  # starts Python three times: 4 s
def test_preparing_at_once(tmp_path, pytestconfig):
    start = functools.partial(
        subprocess.Popen, cwd=pytestconfig.rootpath, stdout=subprocess.PIPE
    )
    command = [sys.executable, "-c", PREPARE, tmp_path]
    racers = [start(command) for _ in range(3)]
    assert [r.communicate()[0] for r in racers] == [b"1437\n"] * 3
    assert len(list(tmp_path.glob("digits/*"))) == 1  # no unfinished folder is left


def make_tiny(data_dir, **splits_of_examples):
    """Prepares a TFDS set `tiny` of tensor features; each split a list of examples."""
    import tensorflow_datasets as tfds

    # Not registered: TFDS knows it by its files alone, as a set prepared elsewhere.
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None

        def _info(self):
            picture = {"shape": (None, None, 3), "dtype": np.uint8, "encoding": "bytes"}
            features = {
                "picture": tfds.features.Tensor(**picture),
                "kind": tfds.features.ClassLabel(num_classes=3),
                "weight": tfds.features.Tensor(shape=(), dtype=np.float32),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {
                k: self._generate_examples(v) for k, v in splits_of_examples.items()
            }

        def _generate_examples(self, examples):
            for i, (picture, kind) in enumerate(examples):
                yield i, {"picture": picture, "kind": kind, "weight": 0.0}

    tfds.disable_progress_bar()
    builder = Tiny(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()


def pictures(n, shape=(4, 5, 3)):
    rng = np.random.default_rng(n)
    return [(rng.integers(0, 256, shape, np.uint8), i % 3) for i in range(n)]


def as_rows(examples):
    return sorted((picture.tobytes(), kind) for picture, kind in examples)


TINY = {"image": "picture", "label": "kind", "validation_fraction": 0.25}


def test_any_tfds_set_is_read_without_tensorflow(load, tmp_path):
    train, test = pictures(24), pictures(6)
    make_tiny(tmp_path, train=train, test=test)
    tiny = load("tiny", data_dir=str(tmp_path), **TINY)
    assert (tiny.shape, tiny.classes, len(tiny.validation)) == ((4, 5, 3), 3, 6)
    assert np.bincount(tiny.validation.source.fields["label"]).tolist() == [2, 2, 2]
    assert sorted(rows_of(tiny.train) + rows_of(tiny.validation)) == as_rows(train)
    assert sorted(rows_of(tiny.test)) == as_rows(test)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "train, changes, message",
    [
        (pictures(8), {"image": "image"}, "no field 'image'; valid: kind, picture, w"),
        (pictures(8), {"label": "kin"}, "no field 'kin'; did you mean 'kind'"),
        (pictures(8), {"label": "weight"}, "no class label; class labels: kind"),
        (pictures(8), {"image": "weight"}, r"no image \(uint8 \[H, W, C\]\)"),
        (pictures(8), {"test": "tset"}, "no split 'tset'; did you mean 'test'"),
        (pictures(8), {"test": "train"}, "its train split cannot be its test"),
        (pictures(8), {"validation_fraction": 0.01}, "validation split .* is empty"),
        (pictures(8) + pictures(1, (5, 5, 3)), {}, "all images of a set must have one"),
        (pictures(8, (5, 5, 3)), {}, "images of differing shapes"),
    ],
)
def test_bad_sets(load, tmp_path, train, changes, message):
    make_tiny(tmp_path, train=train, test=pictures(2))
    with pytest.raises(errors.UserError, match=message) as e:
        load("tiny", data_dir=str(tmp_path), **{**TINY, **changes})
    assert "\n" not in str(e.value)


def test_a_setting_of_no_kind_is_refused(load):
    with pytest.raises(errors.UserError, match="'resmaple'; did you mean 'resample'"):
        load("digits", resmaple="bicubic")


def test_label_out_of_range(load, tmp_path):
    unknown = [(picture, -1) for picture, _ in pictures(3)]  # as hidden labels are
    make_tiny(tmp_path, train=pictures(8), test=unknown)
    with pytest.raises(errors.UserError, match="has kind -1, expected 0 to 2"):
        load("tiny", data_dir=str(tmp_path), **TINY)


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "mnits",
            "unknown data set 'mnits'; did you mean 'mnist' .*valid: digits, and",
        ),
        ("digit", "unknown data set 'digit'; did you mean 'digits'"),
        ("not a/../name", "cannot be opened"),
        (
            "mnist",
            "not prepared in data_dir .*: tfds build mnist --file_format=array_r",
        ),
        ("mnist:99.0.0", "cannot be loaded at version 99.0.0"),
    ],
)
def test_sets_that_are_not_there(load, tmp_path, capfd, name, message):
    with pytest.raises(errors.UserError, match=message) as e:
        load(name, data_dir=str(tmp_path))
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")  # the one line is all there is to read
    assert not list(tmp_path.rglob("*.array_record*"))


def test_data_dir_that_cannot_be_written(load, tmp_path):
    blocked = tmp_path / "a_file"
    blocked.write_text("")
    with pytest.raises(errors.UserError, match="cannot be written to .*a_file"):
        load("digits", data_dir=str(blocked))


def test_damaged_file(load, tmp_path):
    load("digits", data_dir=str(tmp_path))
    (path,) = tmp_path.rglob("*train.array_record*")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(errors.UserError, match="'digits' has a damaged file"):
        load("digits", data_dir=str(tmp_path))


def shared_data(root):
    """Returns the folder of real data, `$PARE_SHARED` or beside the repository."""
    return pathlib.Path(os.environ.get("PARE_SHARED", root.parent / "shared")) / "data"


@pytest.mark.slow  # prepares and reads 70,000 images: 15 s
def test_mnist_through_the_front_door(load, tmp_path, pytestconfig):
    shared = shared_data(pytestconfig.rootpath)
    tool, files = shared / "tools" / "tfds_offline.py", shared / "mnist"
    if not (tool.exists() and files.exists()):
        pytest.skip(f"no MNIST files in {shared}")
    pytest.importorskip("importlib_resources", reason="TFDS's own builders import it")
    command = [sys.executable, tool, "mnist", tmp_path, files]
    subprocess.run(command, check=True, capture_output=True)
    mnist = load("mnist", data_dir=str(tmp_path))
    assert [len(p) for p in mnist[1:4]] == [50_000, 10_000, 10_000]
    images = gzip.decompress((files / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((files / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    want = [(images[784 * i : 784 * (i + 1)], y) for i, y in enumerate(labels)]
    assert sorted(rows_of(mnist.test)) == sorted(want)
    np.testing.assert_allclose(np.array(mnist.inputs.mean) / 255, 0.1307, atol=2e-3)
    np.testing.assert_allclose(np.array(mnist.inputs.std) / 255, 0.3081, atol=2e-3)


def test_what_was_read_is_kept(digits, load):
    """Each row is read once, whatever is asked for, by however many threads."""
    kept = load("digits", resident_bytes=0, kept_bytes=1 << 20)
    source = kept.test.source
    assert isinstance(source, examples.Kept) and rows_of(kept.test) == rows_of(
        digits.test
    )
    settings = {"batch_size": 100, "seed": 0, "threads": 4, "ahead": 4}
    streamed = load("digits", resident_bytes=0)
    feeds = [pipeline.feed(part.train, **settings) for part in (kept, streamed)]
    for _ in range(30):
        got, want = (feed.next(1) for feed in feeds)
        np.testing.assert_array_equal(got["input"], want["input"])
        np.testing.assert_array_equal(got["label"], want["label"])
    assert source[7]["label"] == digits.test.source[7]["label"]
    small = load("digits", resident_bytes=0, kept_bytes=1000)
    assert isinstance(small.train.source, examples.Records)


def test_no_row_is_read_twice():
    seen = []

    class Rows(list):
        def __getitems__(self, indices):
            seen.extend(indices)
            return [self[i] for i in indices]

    rows = Rows({"x": np.full((1, 1, 1), i, np.uint8), "y": i} for i in range(9))
    table = examples.Table(
        "n",
        "train",
        rows,
        lambda r: r["x"],
        lambda r: r["y"],
        "y",
        (1, 1, 1),
        np.uint8,
        9,
    )
    source = examples.Kept(examples.Records(table, np.array([8, 6, 4, 2])))
    for indices in ([0, 0, 3], [3, 1], [0, 1, 3]):
        got = source.gather(np.array(indices))
        np.testing.assert_array_equal(got["label"], np.array([8, 6, 4, 2])[indices])
        np.testing.assert_array_equal(got["input"].ravel(), got["label"])
    assert seen == [8, 2, 6]
