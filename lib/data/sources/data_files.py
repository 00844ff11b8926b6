r"""Files as a source: CSV, TSV, JSON lines, Parquet and NumPy's `.npz`.

A folder's splits are the stems of its files (`train.tsv`, `dev.tsv`). A file that is
named alone is one split, `train`, whatever it is called; the test split is then drawn
(`data.test=""`). An `.npz` may hold several splits itself: arrays called `train_image`,
`test_label` are the fields of splits `train` and `test`; where no name begins with
`train_`, all arrays are fields of the one split. A field `image` is uint8 [N, H, W, C],
a field of classes whole numbers [N] from 0.

CSV has the usual quotes (a quoted field may hold commas, quotes and line breaks). TSV
has none: every character between tabs is text, as GLUE's files are written. Both begin
with a line of names and are UTF-8. Columns of whole numbers or decimals are numbers,
with the empty field, `NA`, `NaN` and the like for missing; any other column is text, in
which `NA` is a text like any other.

Splits may differ in their columns (a test split without labels): that is an error only
where a column is asked for that a split has not.
"""

import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lib import errors
from lib.data.sources.columns import Columns
from lib.data.sources.rows import Opened

MOST_CLASSES = 100_000  # of an array of whole numbers; beyond, it holds no classes
SPLITS = ("train", "validation", "test")  # that an .npz may hold beside one another


def _csv(path: pathlib.Path) -> Any:
    from pyarrow import csv

    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))


def _tsv(path: pathlib.Path) -> Any:
    from pyarrow import csv

    return csv.read_csv(
        path, parse_options=csv.ParseOptions(delimiter="\t", quote_char=False)
    )


def _json_lines(path: pathlib.Path) -> Any:
    from pyarrow import json

    return json.read_json(path)


def _parquet(path: pathlib.Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


# Suffix -> path -> a pyarrow table; of .npz, a mapping from names to arrays.
READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
}


def inside(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the data files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix in READERS and p.is_file())


def find(name: str) -> Opened:
    """Returns the source of a file, or of a folder of files.

    Raises:
      UserError: there is no such file, it cannot be read, or holds nothing; two files
        of a folder are called alike.
    """
    path = pathlib.Path(name).expanduser()
    if not path.exists():
        raise errors.UserError(f"data set {name!r}: {_missing(path)}")
    found: dict[str, Columns] = {}
    files = inside(path) if path.is_dir() else [path]
    if path.is_dir():
        for file in files:
            if file.stem in found:
                raise errors.UserError(
                    f"data set {name!r} holds two files of split {file.stem!r}; remove "
                    "one, or name the one you mean"
                )
            columns = _even(name, file, _columns(name, file))
            found[file.stem] = Columns(name, file.stem, columns)
    else:
        columns = _columns(name, path)
        for split, part in _splits(columns, path.suffix).items():
            found[split] = Columns(name, split, _even(name, path, part))
    # One order, without those that come again: the fields of all splits.
    fields = tuple(dict.fromkeys(f for rows in found.values() for f in rows.fields))
    arrays = {file.suffix for file in files} == {".npz"}
    classes = _classes(found["train"]) if arrays and "train" in found else {}
    return Opened(name, found, fields, classes, _images(found))


def _missing(path: pathlib.Path) -> str:
    near = []
    if path.parent.is_dir():
        near = errors.nearest(path.name, [p.name for p in path.parent.iterdir()], 1)
    meant = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
    return f"there is no file {str(path)!r}{meant}"


def _columns(name: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns a file's columns; one line tells what is wrong with it."""
    try:
        read = READERS[path.suffix](path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        reason = " ".join(str(e).split())[:200]
        raise errors.UserError(
            f"data set {name!r}: {path.name} cannot be read: {reason}"
        ) from e
    if path.suffix == ".npz":
        return read
    twice = [c for c in read.column_names if read.column_names.count(c) > 1]
    if twice:
        raise errors.UserError(
            f"data set {name!r}: {path.name} has two columns called {twice[0]!r}"
        )
    return {c: _array(read.column(c)) for c in read.column_names}


def _array(column: Any) -> np.ndarray:
    """Returns a pyarrow column as an array: numbers, else objects."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)  # a column of nothing but missing values
    if pa.types.is_integer(kind) and not column.null_count:
        return column.to_numpy()
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return column.cast(pa.float64(), safe=False).to_numpy()  # missing: NaN
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _splits(
    columns: Mapping[str, np.ndarray], suffix: str
) -> dict[str, dict[str, np.ndarray]]:
    """Returns split -> its columns."""
    if suffix != ".npz" or not any(c.startswith("train_") for c in columns):
        return {"train": dict(columns)}
    found: dict[str, dict[str, np.ndarray]] = {}
    for field, values in columns.items():
        split, _, rest = field.partition("_")
        if split in SPLITS and rest:
            found.setdefault(split, {})[rest] = values
    return found


def _even(
    name: str, path: pathlib.Path, columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns columns of one length; a `UserError` where they are not."""
    lengths = {f: len(v) if np.ndim(v) else 0 for f, v in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{f} {n}" for f, n in lengths.items())
        raise errors.UserError(
            f"data set {name!r}: {path.name} holds arrays of differing lengths: {told}"
        )
    return columns


def _classes(train: Columns) -> dict[str, tuple[str, ...]]:
    """Returns the classes of whole numbers in arrays: from 0 to the highest in train.

    Of tables' files nothing is known: what their columns hold is a class by its name.
    """
    found = {}
    for field in train.fields:
        values = train.column(field)
        if values.ndim == 1 and values.dtype.kind in "iu" and len(values):
            if 0 <= values.min() and values.max() < MOST_CLASSES:
                found[field] = tuple(map(str, range(int(values.max()) + 1)))
    return found


def _images(splits: Mapping[str, Columns]) -> tuple[str, ...]:
    """Returns the fields that hold uint8 [N, H, W, C] in every split that has them."""

    def fits(values: np.ndarray) -> bool:
        return values.dtype == np.uint8 and values.ndim == 4

    found: dict[str, bool] = {}
    for rows in splits.values():
        for field in rows.fields:
            found[field] = found.get(field, True) and fits(rows.column(field))
    return tuple(f for f, image in found.items() if image)
