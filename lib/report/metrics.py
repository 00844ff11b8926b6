"""Metrics as training goes: `metrics.jsonl` and TensorBoard events.

A record is one line `{"stage": ..., "step": ..., name: value, ...}`; `step` counts the
steps of the stage that were done. The lines are in the order of time.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import errors, files
from lib.report import events

NAME = "metrics.jsonl"
EVENTS = "events"
Record = dict[str, Any]


class MetricsWriter:
    """Appends records to a workdir; one process and one writer at a time.

    Whatever a killed run left is kept, but for a torn last line. `begin` cuts off what
    the resumed run will do again.
    """

    def __init__(self, workdir: str | os.PathLike):
        """Opens `workdir`, which is made if missing; UserError if not writable."""
        self._path = Path(workdir) / NAME
        self._events = Path(workdir) / EVENTS
        self._boards: dict[str, Any] = {}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab")
            _, whole = _records(self._path)
            self._cut(whole)
        except OSError as e:
            raise files.unwritable(self._path, e) from e

    def begin(self, stage: str, step: int = 0) -> None:
        """Starts a stage, or goes on with it after `step`.

        Cuts the file off at the first record of `stage` beyond `step` (at its very
        first if `step` is 0): all that follows was logged later still, and is about
        to be done again. So a checkpoint of step s is saved after the record of step
        s was written.
        """
        records, _ = _records(self._path)
        for record, start in records:
            if record["stage"] == stage and (step == 0 or record["step"] > step):
                self._cut(start)
                break
        self._board(stage, first=step + 1 if step else 0)

    def write(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one record and flushes it.

        Args:
          stage: its name.
          step: steps of the stage that were done.
          metrics: name -> scalar; a loss that is not finite is kept as such.
        """
        taken = {"stage", "step"} & set(metrics)
        if taken:
            raise ValueError(f"a metric cannot be named {min(taken)!r}")
        values = {name: float(value) for name, value in metrics.items()}
        record = files.plain({"stage": stage, "step": int(step), **values})
        try:
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()
            self._board(stage, first=0).write(int(step), values)
        except OSError as e:
            raise files.unwritable(self._path, e) from e

    def _cut(self, length: int) -> None:
        self._file.truncate(length)

    def _board(self, stage: str, *, first: int):
        """Returns the stage's own event writer; steps from `first` on are void."""
        if stage not in self._boards:
            folder = self._events / stage
            void = first if folder.exists() else None
            try:
                self._boards[stage] = events.EventsWriter(folder, void)
            except OSError as e:
                raise files.unwritable(folder, e) from e
        return self._boards[stage]

    def close(self) -> None:
        """Flushes and closes all files; UserError if the disk is full."""
        boards, self._boards = self._boards, {}
        try:
            self._file.close()
            for board in boards.values():
                board.close()
        except OSError as e:
            raise files.unwritable(self._events, e) from e

    def __enter__(self) -> "MetricsWriter":
        """Returns the writer itself."""
        return self

    def __exit__(self, kind, *_) -> None:
        """Closes the writer."""
        # Where an error is on its way, a disk that is full is not the news.
        with contextlib.suppress(*([errors.UserError] if kind else [])):
            self.close()


def _records(path: Path) -> tuple[list[tuple[Record, int]], int]:
    """Returns `[(record, where its line starts)]` and the length of the whole lines."""
    records, start = [], 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # the last one has no newline: torn
        try:
            record = files.parse_json(line)
            record["stage"], record["step"]
        except (ValueError, TypeError, KeyError) as e:
            if number == len(lines) - 1:  # a power cut may tear the last whole line too
                break
            raise errors.UserError(
                f'{path} is damaged: line {number} is no {{"stage", "step", ...}}'
            ) from e
        records.append((record, start))
        start += len(line) + 1
    return records, start


def read(workdir: str | os.PathLike) -> dict[str, list[Record]]:
    """Returns the records of each stage in order, `{}` if nothing was trained.

    A torn last line is left out; values that are not finite come back as floats.

    Raises:
      UserError: a line before the last is damaged.
    """
    path = Path(workdir) / NAME
    by_stage: dict[str, list[Record]] = {}
    if not path.exists():
        return by_stage
    for record, _ in _records(path)[0]:
        values = {
            name: float(value) if isinstance(value, str) else value
            for name, value in record.items()
            if name != "stage"
        }
        by_stage.setdefault(record["stage"], []).append(
            {"stage": record["stage"], **values}
        )
    return by_stage
