"""`result.json`: what a run measured, its schema, and the ratios to the first stage."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib import errors, files

NAME = "result.json"
PAGE = "report.html"
Result = dict[str, Any]


class Maybe(NamedTuple):
    """A value that may be null: it was not measured."""

    schema: Any


class Each(NamedTuple):
    """A dict of any names, all values alike."""

    schema: Any


# A key that ends with "?" may be left out; keys beyond these are allowed.
LATENCY = {
    "median": "number",  # milliseconds a batch
    "low": "number",
    "high": "number",
    "n": "count",  # timed batches
    "batch": "count",  # examples in a batch
}
RATIO = Each(Maybe("number"))
STAGE = {
    "name": "text",
    "steps": "count",
    "seconds": "number",
    "metrics": {"accuracy": "fraction"},  # of the whole test split
    "size": {
        "params": "count",
        "nonzero": "count",
        "file_bytes": "count",
        "macs": Maybe("count"),  # multiply-accumulates for one example
    },
    "latency_ms": Maybe(LATENCY),
    "baseline_ratio?": RATIO,  # `write` adds it
}
ARTIFACT = {
    "path": "text",
    "bytes": "count",
    "accuracy": Maybe("fraction"),
    "latency_ms": Maybe(LATENCY),
    "size?": {
        "params": "count",
        "nonzero": "count",
        "macs": Maybe("count"),
    },
    "baseline_ratio?": RATIO,
    # Of a file that was run in its own runtime.
    "runtime?": "text",
    "same_class_as_jax?": "fraction",
    "float_contractions?": "count",
    "integer_contractions?": "count",
    "peak_memory_bytes?": Maybe("count"),
    "times_ms?": [{**LATENCY, "threads": "count"}],
}
SCHEMA = {
    "experiment": "text",
    "config": "dict",
    "environment": "dict",
    "stages": [STAGE],
    "artifacts": Each(ARTIFACT),
    "data?": {
        "counts": Each("count"),  # what was missing, cut or unknown -> how often
        "features": [{"name": "text", "score": Maybe("number"), "kept": "flag"}],
    },
    "verdicts?": ["text"],  # on the speed of the artifacts
    "left_out?": Each("text"),  # artifact -> why there is no such file
}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


KINDS = {
    "text": ("text", lambda v: isinstance(v, str)),
    "flag": ("true or false", lambda v: isinstance(v, bool)),
    "dict": ("a dict", lambda v: isinstance(v, Mapping)),
    "number": ("a finite number", _is_number),
    "count": (
        "a whole number of at least 0",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    ),
    "fraction": (
        "a fraction between 0 and 1",
        lambda v: _is_number(v) and 0 <= v <= 1,
    ),
}


def _check(value: Any, schema: Any, where: str) -> None:
    """Raises a ValueError that names the first key of `value` not as in `schema`."""
    match schema:
        case Maybe(inner):
            if value is not None:
                _check(value, inner, where)
        case Each(inner):
            _check(value, "dict", where)
            for key, child in value.items():
                _check(child, inner, f"{where}.{key}")
        case str():
            what, holds = KINDS[schema]
            if not holds(value):
                raise ValueError(f"{where} is {value!r}, expected {what}")
        case list():
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueError(f"{where} is {value!r}, expected a list")
            for i, child in enumerate(value):
                _check(child, schema[0], f"{where}[{i}]")
        case dict():
            _check(value, "dict", where)
            for key, inner in schema.items():
                name, optional = key.removesuffix("?"), key.endswith("?")
                path = f"{where}.{name}" if where else name
                if name in value:
                    _check(value[name], inner, path)
                elif not optional:
                    raise ValueError(f"{path} is missing")


def validate(result: Mapping[str, Any]) -> None:
    """Checks a result (plain JSON values) against the schema.

    Raises:
      ValueError: names the key that is missing, of a wrong type or contradictory.
    """
    _check(result, SCHEMA, "")
    names = [stage["name"] for stage in result["stages"]]
    if not names:
        raise ValueError("stages is empty, expected at least one")
    for i, stage in enumerate(result["stages"]):
        if stage["name"] in names[:i]:
            raise ValueError(f"stages[{i}].name {stage['name']!r} stands there twice")
    measured = [(f"stages[{i}]", stage) for i, stage in enumerate(result["stages"])]
    measured += [(f"artifacts.{n}", a) for n, a in result["artifacts"].items()]
    for where, entry in measured:
        size, latency = entry.get("size"), entry["latency_ms"]
        if size and size["nonzero"] > size["params"]:
            raise ValueError(f"{where}.size.nonzero is more than params")
        if latency and not latency["low"] <= latency["median"] <= latency["high"]:
            raise ValueError(f"{where}.latency_ms.median is not from low to high")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is told of a stage or an artifact; None was not measured.

    Attributes:
      name: of the stage or the artifact.
      kind: "stage" or "artifact".
      accuracy: fraction of the test split.
      params, nonzero, file_bytes, macs: counts.
      latency: `{"median", "low", "high", "n", "batch"}`, milliseconds a batch.
      ratio: to the first stage, see `ratios`.
    """

    name: str
    kind: str
    accuracy: float | None
    params: int | None
    nonzero: int | None
    file_bytes: int
    macs: int | None
    latency: Mapping[str, Any] | None
    ratio: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


def _row(name: str, entry: Mapping[str, Any]) -> Row:
    size = entry.get("size") or {}
    stage = "steps" in entry
    return Row(
        name=name,
        kind="stage" if stage else "artifact",
        accuracy=entry["metrics"]["accuracy"] if stage else entry["accuracy"],
        params=size.get("params"),
        nonzero=size.get("nonzero"),
        file_bytes=size["file_bytes"] if stage else entry["bytes"],
        macs=size.get("macs"),
        latency=entry["latency_ms"],
    )


def _compare(first: Row, row: Row) -> dict[str, float | None]:
    def fewer(name: str) -> float | None:
        one, other = getattr(first, name), getattr(row, name)
        return one / other if one is not None and other else None

    ratio: dict[str, float | None] = {
        name: fewer(name) for name in ("file_bytes", "params", "nonzero", "macs")
    }
    ratio["latency"] = None
    if first.latency and row.latency and row.latency["median"] > 0:
        # Times of different batch sizes say nothing about each other.
        if first.latency["batch"] == row.latency["batch"]:
            ratio["latency"] = first.latency["median"] / row.latency["median"]
    ratio["accuracy"] = None
    if first.accuracy is not None and row.accuracy is not None:
        ratio["accuracy"] = 100 * (row.accuracy - first.accuracy)
    return ratio


def ratios(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the stages, each with its "baseline_ratio" to the first one.

    "file_bytes", "params", "nonzero" and "macs" say how many times fewer there are,
    "latency" how many times faster a batch is (by the medians), "accuracy" the
    difference in percentage points. None where one of the two was not measured, the
    batch sizes differ, or the divisor is 0.
    """
    rows = [_row(stage["name"], stage) for stage in stages]
    return [
        {**stage, "baseline_ratio": _compare(rows[0], row)}
        for stage, row in zip(stages, rows, strict=True)
    ]


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Returns one row a stage and then one an artifact, with ratios to the first."""
    found = [_row(stage["name"], stage) for stage in result["stages"]]
    found += [_row(name, entry) for name, entry in result["artifacts"].items()]
    return [dataclasses.replace(r, ratio=_compare(found[0], r)) for r in found]


def write(workdir: str | os.PathLike, result: Mapping[str, Any]) -> Result:
    """Writes `result.json` with all ratios; returns the result as it was written.

    Raises:
      ValueError: the result is not as in the schema.
      UserError: the workdir cannot be written.
    """
    result = files.plain(result)
    validate(result)
    result["stages"] = ratios(result["stages"])
    for row in rows(result):
        if row.kind == "artifact":
            result["artifacts"][row.name]["baseline_ratio"] = row.ratio
    files.write_json(Path(workdir) / NAME, result)
    return result


def read(workdir: str | os.PathLike) -> Result:
    """Returns the checked `result.json` of a workdir.

    Raises:
      UserError: it is missing, damaged, or not as in the schema.
    """
    path = Path(workdir) / NAME
    result = files.read_json(path)
    try:
        validate(result)
    except ValueError as e:
        raise errors.UserError(f"{path} is damaged: {e}") from e
    return result
