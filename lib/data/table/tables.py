"""Tables as a kind of data: rows of numbers and categories.

All that is measured (which categories there are, what fills in for a missing number,
means and deviations, which features are worth keeping) is measured on the training part
alone, by scikit-learn, and becomes plain constants that are applied on the device.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lib import errors
from lib.data import examples, parts, splits
from lib.data.sources import labels
from lib.data.sources.columns import Columns
from lib.data.sources.rows import Opened, has_field, split_of
from lib.data.table import columns as table_columns
from lib.data.table import fit as table_fit
from lib.data.table.inputs import TableInputs


def load(
    opened: Opened,
    names: parts.Names,
    *,
    label: str,
    resident_bytes: int,
    table: Mapping[str, Any],
    fitted: TableInputs | None = None,
) -> tuple[Any, ...]:
    """Returns the fields of a `dataset.Dataset` after its name.

    Args:
      opened: the source.
      names: which of its splits is what.
      label: the column that holds the class.
      resident_bytes: not looked at: a table is held in memory.
      table: the settings of `table_fit.fit`, and `columns` and `categorical`, see
        `_kinds`.
      fitted: the inputs of an artifact, whose columns and categories these are; None to
        fit them.

    Raises:
      UserError: an unknown split, column or setting; a column of mixed values; labels
        that are missing, or of a class that training has not; no feature left.
    """
    del resident_bytes
    settings = dict(table)
    columns, categorical = settings.pop("columns"), settings.pop("categorical")
    table_fit.check(**settings)
    has_field(opened, label)
    tables = {n: _columns(opened, n) for n in names[:3] if n}
    trained = tables[names.train]
    classes = labels.of(opened, label, _labels(trained, label))
    if fitted:
        kinds = {column.name: column.kind for column in fitted.columns}
    else:
        kinds = _kinds(opened.name, trained, label, columns, categorical)

    def read(split: str) -> examples.Arrays:
        where = f"split {split!r} of data set {opened.name!r}"
        for name, kind in kinds.items():  # a flaw is told by its row in the file
            column = table_columns.Column(name, kind)
            table_columns.store(column, tables[split].column(name), where)
        fields = {f"column {name}": tables[split].column(name) for name in kinds}
        coded = classes.code(split, _labels(tables[split], label))
        return examples.Arrays({"label": coded, **fields})

    # Raw values are divided first: what is fitted may see the training part alone.
    divided = parts.divide(opened.name, names, read)
    raw = [{n: p.fields[f"column {n}"] for n in kinds} for p in divided]
    if fitted:  # codes are places among its categories, whatever these data have
        learned = fitted.columns
    else:
        learned = tuple(table_columns.learn(n, k, raw[0][n]) for n, k in kinds.items())
    counts: dict[str, int] = {}
    stored = []
    for part, values in zip(("train", "validation", "test"), raw, strict=True):
        where = f"the {part} part of data set {opened.name!r}"
        stored.append(_stored(learned, values, part, where, counts))
    inputs, features = fitted, ()
    if not fitted:
        trained_on = divided[0].fields["label"]
        inputs, features = table_fit.fit(learned, stored[0], trained_on, **settings)
    constant = [
        c.name
        for c, v in zip(learned, stored[0].T, strict=True)
        if len(np.unique(v[~np.isnan(v)])) < 2
    ]
    if constant:
        counts[f"columns that never vary in train ({', '.join(constant)})"] = len(
            constant
        )
    count = len(classes.names)
    made = [
        kind(
            opened.name,
            examples.Arrays({"input": x, "label": part.fields["label"]}),
            count,
            (len(learned),),
        )
        for kind, x, part in zip(
            (splits.Train, splits.Validation, splits.Test), stored, divided, strict=True
        )
    ]
    shape = (len(inputs.features),)
    return (*made, count, shape, inputs, classes.names, counts, features)


def _columns(opened: Opened, split: str) -> Columns:
    """Returns a split by columns; what has only rows is read whole."""
    rows = split_of(opened, split)
    if isinstance(rows, Columns):
        return rows
    # Objects, as they are: an array of a number and a text would be of two texts.
    found = {field: np.empty(len(rows), object) for field in opened.fields}
    for start in range(0, len(rows), examples.CHUNK):
        stop = min(start + examples.CHUNK, len(rows))
        read = rows.__getitems__(list(range(start, stop)))
        for i, row in enumerate(read, start):
            for field, value in row.items():
                text = isinstance(value, bytes)
                found[field][i] = value.decode("utf-8") if text else value
    return Columns(opened.name, split, found)


def _labels(table: Columns, label: str) -> list[Any]:
    """Returns a split's classes as they stand there; None where one is missing."""
    return [
        None if table_columns.is_missing(v) else v for v in table.column(label).tolist()
    ]


def _kinds(
    name: str,
    trained: Columns,
    label: str,
    columns: tuple[str, ...],
    categorical: tuple[str, ...],
) -> dict[str, str]:
    """Returns column -> kind, of the columns that inputs are made of.

    Args:
      name: of the data set, for messages.
      trained: the training split.
      label: the column of the class.
      columns: those that are asked for; () for all but the label.
      categorical: those whose numbers name categories.
    """
    if label in columns:
        raise errors.UserError(
            f"data set {name!r}: data.table.columns names the label {label!r}"
        )
    chosen = tuple(columns) or tuple(f for f in trained.fields if f != label)
    for column in categorical:
        if column not in chosen:
            raise errors.UserError(
                f"data set {name!r}: data.table.categorical names {column!r}, which is "
                f"no column of the inputs; {errors.hint(column, chosen)}"
            )
    if not chosen:
        raise errors.UserError(
            f"data set {name!r} has no column besides the label {label!r}"
        )
    return {
        column: table_columns.kind_of(
            column, trained.column(column), column in categorical
        )
        for column in chosen
    }


def _stored(
    columns: tuple[table_columns.Column, ...],
    values: Mapping[str, np.ndarray],
    part: str,
    where: str,
    counts: dict[str, int],
) -> np.ndarray:
    """Returns a part's stored rows, float32 [N, C], and counts what it lacks."""
    found = []
    for column in columns:
        coded = table_columns.store(column, values[column.name], where)
        if coded.missing:
            counts[f"{column.name}: missing values in {part}"] = coded.missing
        if coded.unseen:
            told = f"{column.name}: values in {part} of categories unseen in training"
            counts[told] = coded.unseen
        found.append(coded.values)
    return np.stack(found, 1)
