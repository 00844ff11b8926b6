"""Files as a source: each kind by a literal table, and one line for what is wrong."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from lib import errors
from lib.data import sources

ROWS = [
    {"age": 30.0, "job": "nurse, senior", "label": 0},
    {"age": None, "job": 'a "b"', "label": 1},
    {"age": 50.5, "job": "", "label": 1},
]
CSV = 'age,job,label\n30,"nurse, senior",0\n,"a ""b""",1\n50.5,,1\n'
TSV = 'age\tjob\tlabel\n30\tnurse, senior\t0\n\ta "b"\t1\n50.5\t\t1\n'


def write(folder):
    """Writes the same rows as every kind of file; returns their paths."""
    (folder / "a.csv").write_text(CSV)
    (folder / "a.tsv").write_text(TSV)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    for name in ("a.jsonl", "a.json"):
        (folder / name).write_text(lines)
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    return [folder / f"a{s}" for s in (".csv", ".tsv", ".jsonl", ".json", ".parquet")]


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    for path in write(tmp_path):
        opened = sources.find(str(path), None)
        assert list(opened.splits) == ["train"], path  # whatever the file is called
        assert opened.fields == ("age", "job", "label")
        rows = opened.splits["train"]
        assert len(rows) == 3
        np.testing.assert_array_equal(rows.column("age"), [30, np.nan, 50.5])
        assert rows.column("job").tolist() == [row["job"] for row in ROWS], path
        assert rows.column("label").tolist() == [0, 1, 1]
        assert rows[0] == ROWS[0] and rows.__getitems__([2, 0])[1] == ROWS[0]


def test_a_folder_has_a_split_for_each_file(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nit 's \"fine\tgood\n")
    (tmp_path / "test-labeled.csv").write_text("sentence,label\nso so,bad\n")
    (tmp_path / "test.jsonl").write_text('{"sentence": "well"}\n')
    (tmp_path / "README.md").write_text("not data")
    opened = sources.find(str(tmp_path), None)
    assert set(opened.splits) == {"train", "test-labeled", "test"}
    # TSV knows no quotes.
    assert opened.splits["train"][0] == {"sentence": "it 's \"fine", "label": "good"}
    assert "label" in opened.fields  # though one split has it not
    with pytest.raises(errors.UserError, match="split 'test' of .* no column 'label'"):
        opened.splits["test"].column("label")


def test_arrays_of_several_splits_in_one_file(tmp_path):
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)
    arrays = {"train_image": images, "train_label": np.array([0, 2, 1])}
    arrays |= {"test_image": images[:1], "test_label": np.array([1])}
    np.savez(tmp_path / "all.npz", **arrays)
    opened = sources.find(str(tmp_path / "all.npz"), None)
    assert {k: len(v) for k, v in opened.splits.items()} == {"train": 3, "test": 1}
    assert opened.fields == ("image", "label") and opened.images == ("image",)
    assert opened.classes == {"label": ("0", "1", "2")}
    assert opened.splits["train"][1]["image"].shape == (4, 4, 1)


def test_a_folder_of_arrays_is_images(load, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        images = rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
        np.savez(tmp_path / f"{split}.npz", image=images, label=np.arange(count) % 2)
    found = load(str(tmp_path), validation_fraction=0.2)
    assert (found.shape, found.classes, found.names) == ((4, 4, 1), 2, ("0", "1"))
    assert [len(p) for p in (found.train, found.validation, found.test)] == [16, 4, 4]
    np.savez(tmp_path / "test.npz", image=images, label=np.full(4, 2))
    with pytest.raises(errors.UserError, match="has label 2, expected 0 to 1"):
        load(str(tmp_path), validation_fraction=0.2)


def test_bundled_sets_are_tables():
    iris = sources.find("sklearn/iris", None)
    assert iris.classes == {"label": ("setosa", "versicolor", "virginica")}
    assert len(iris.splits["train"]) == 150 and len(iris.fields) == 5
    with pytest.raises(errors.UserError, match="did you mean 'sklearn/iris'"):
        sources.find("sklearn/irsi", None)


def bad(tmp_path, what):
    """Makes something that cannot be opened; returns its name."""
    if what == "no such file":
        (tmp_path / "trian.csv").write_text("a\n1\n")
        return str(tmp_path / "train.csv")
    if what == "no such folder":
        (tmp_path / "sst2").mkdir()
        return str(tmp_path / "sst")
    if what == "empty folder":
        return str(tmp_path)
    if what == "twice":
        for name in ("train.csv", "train.tsv"):
            (tmp_path / name).write_text("a\n1\n")
        return str(tmp_path)
    content = {
        "empty.csv": b"",
        "ragged.csv": b"a,b\n1,2\n1\n",
        "same.csv": b"a,a\n1,2\n",
        "damaged.parquet": b"PAR1 nothing",
        "damaged.jsonl": b'{"a": 1}\n{"a": \n',
        "damaged.npz": b"PK nothing",
    }[what]
    (tmp_path / what).write_bytes(content)
    return str(tmp_path / what)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no such file", "there is no file .*; did you mean '.*/trian.csv'"),
        ("no such folder", "there is no such folder; did you mean '.*/sst2'"),
        ("empty folder", r"no folder of data files \(.csv, .tsv"),
        ("twice", "two files of split 'train'"),
        ("empty.csv", "empty.csv cannot be read: Empty CSV"),
        ("ragged.csv", "ragged.csv cannot be read: .*Expected 2 columns, got 1"),
        ("same.csv", "two columns called 'a'"),
        ("damaged.parquet", "damaged.parquet cannot be read"),
        ("damaged.jsonl", "damaged.jsonl cannot be read"),
        ("damaged.npz", "damaged.npz cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, what, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        sources.find(bad(tmp_path, what), None)
    assert "\n" not in str(caught.value)


def test_arrays_of_differing_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 2, 2, 1)), label=np.zeros(2))
    with pytest.raises(errors.UserError, match="differing lengths: image 3, label 2"):
        sources.find(str(tmp_path / "a.npz"), None)
