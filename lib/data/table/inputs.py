"""From rows of a table to inputs: fill in, one-hot, standardise, select."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.data.table import columns as table_columns
from lib.data.table.columns import Column


class Feature(NamedTuple):
    """One number among a model's inputs.

    Attributes:
      column: the place of its column in a stored row.
      code: of the category it is 1 for; None for the column's number itself.
    """

    column: int
    code: int | None


class TableInputs(NamedTuple):
    """What makes inputs [B, F] of stored rows [B, C]; an `inputs.Inputs`.

    A missing number becomes its column's `fill`; a category becomes a 1 for its own
    feature and zeros for others, so that one that is missing or unknown is all zeros;
    each feature then becomes `(x - mean) / std`. Features that were not selected are
    never made.

    Attributes:
      columns: of a stored row, in order.
      fill: one number a column; 0 for categories.
      features: those that are kept, in order.
      mean: one number a feature.
      std: one positive number a feature.
    """

    columns: tuple[Column, ...]
    fill: tuple[float, ...]
    features: tuple[Feature, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    # In capitals, which a NamedTuple does not take for fields.
    KIND = "table"
    DTYPE = jnp.float32

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features: `age`, or `job=nurse`."""
        return tuple(name_of(self.columns, feature) for feature in self.features)

    def stored(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Returns one stored row; `shape` is that of its input, (F,)."""
        del shape
        return jax.ShapeDtypeStruct((len(self.columns),), jnp.float32)

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return {
            "columns": [[c.name, c.kind, list(c.categories)] for c in self.columns],
            "fill": list(self.fill),
            "features": [[f.column, f.code] for f in self.features],
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def encode(
        self, values: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
    ) -> np.ndarray:
        """Returns stored rows, float32 [N, C], of raw values: what a server is asked.

        Args:
          values: column -> its N values, or N rows, column -> value. None, NaN and the
            empty text are missing; other columns than the table's are not read.

        Raises:
          UserError: a column is missing, or a value is of another kind than in
            training, or is infinite.
        """
        coded = [
            table_columns.store(
                column, _values(values, column.name), "the values"
            ).values
            for column in self.columns
        ]
        if len({len(c) for c in coded}) > 1:
            told = ", ".join(
                f"{column.name} {len(c)}"
                for column, c in zip(self.columns, coded, strict=True)
            )
            raise errors.UserError(f"columns of differing lengths: {told}")
        return np.stack(coded, 1)

    def __call__(self, stored: jax.Array) -> jax.Array:
        """Returns inputs, float32 [B, F], of stored rows, float32 [B, C]."""
        fill = np.asarray(self.fill, np.float32)[None]
        # A number that is not itself is NaN, in every runtime.
        filled = jnp.where(stored != stored, fill, stored)
        pieces = []
        for column, count, codes in _runs(self.features):
            piece = filled[:, column : column + count]
            if codes:
                names = np.asarray(codes, np.float32)[None]
                piece = (piece == names).astype(jnp.float32)
            pieces.append(piece)
        made = pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, 1)
        mean = np.asarray(self.mean, np.float32)[None]
        inverse = np.float32(1) / np.asarray(self.std, np.float32)[None]
        return (made - mean) * inverse


def name_of(columns: Sequence[Column], feature: Feature) -> str:
    """Returns the name of a feature: `age`, or `job=nurse`."""
    column = columns[feature.column]
    if feature.code is None:
        return column.name
    return f"{column.name}={column.categories[feature.code]}"


def from_plain(values: dict[str, Any]) -> TableInputs:
    """Returns what `TableInputs.plain` was called on."""
    return TableInputs(
        tuple(
            Column(name, kind, tuple(found)) for name, kind, found in values["columns"]
        ),
        tuple(map(float, values["fill"])),
        tuple(Feature(column, code) for column, code in values["features"]),
        tuple(map(float, values["mean"])),
        tuple(map(float, values["std"])),
    )


def _values(values: Any, name: str) -> Sequence[Any]:
    for there in [values] if isinstance(values, Mapping) else values:
        if name not in there:
            raise errors.UserError(
                f"column {name!r} is missing; {errors.hint(name, there)}"
            )
    if isinstance(values, Mapping):
        return values[name]
    return [row[name] for row in values]


def _runs(features: Sequence[Feature]) -> list[tuple[int, int, list[int]]]:
    """Returns features as few slices: (first column, number of columns, codes).

    Numbers of columns that follow one another are one slice without codes; the
    categories of one column are one slice of that column with their codes.
    """
    runs: list[tuple[int, int, list[int]]] = []
    for column, code in features:
        if runs:
            first, count, codes = runs[-1]
            if code is None and not codes and first + count == column:
                runs[-1] = (first, count + 1, [])
                continue
            if code is not None and codes and first == column:
                codes.append(code)
                continue
        runs.append((column, 1, [] if code is None else [code]))
    return runs
