"""SIGTERM as a question that the training loop asks, so that a preempted run saves."""

import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(SystemExit):
    """The run was asked to end and has saved; the process exits as after SIGTERM."""

    def __init__(self, message: str):
        """Keeps the message and exits with 128 + 15, so that schedulers requeue."""
        super().__init__(128 + signal.SIGTERM)
        self.message = message


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM has arrived."""
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        yield lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, before)
