"""TensorBoard events, written by the caller's own thread.

tensorboardX's `SummaryWriter` has a thread and an exit hook, which on a full disk print
tracebacks of their own, and it overwrites the file of a run of the same second. The
writer below it has neither.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

FLUSH_SECONDS = 10.0  # a flush waits for the disk


class EventsWriter:
    """Writes the scalars of one folder; raises OSError when the disk is full."""

    def __init__(self, folder: str | os.PathLike, first: int | None):
        """Opens a new file; earlier events of steps from `first` on are void."""
        from tensorboardX import event_file_writer  # slow
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event = event_pb2.Event
        self._summary = summary_pb2.Summary
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = event_file_writer.EventsWriter(
            str(Path(folder) / "events"), f".{os.getpid()}"
        )
        self._flushed = time.monotonic()
        if first is not None:
            log = event_pb2.SessionLog
            self._write(step=first, session_log=log(status=log.START))

    def _write(self, **fields) -> None:
        self._file.write_event(self._event(wall_time=time.time(), **fields))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of one step."""
        pairs = [self._summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._write(step=step, summary=self._summary(value=pairs))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()
