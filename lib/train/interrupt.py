"""SIGTERM: while a stage trains a question that the loop asks, so that it can save."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


class Interrupted(SystemExit):
    """The run was asked to end and has saved; the process exits as after SIGTERM."""

    def __init__(self, message: str):
        """Keeps the message and exits with 128 + 15, so that schedulers requeue."""
        super().__init__(128 + signal.SIGTERM)
        self.message = message


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM has arrived.

    Raises:
      Interrupted: at the end, when it has arrived and nobody asked.
    """
    arrived = []
    with _handled(lambda number, frame: arrived.append(number)):
        yield lambda: bool(arrived)
    if arrived:
        raise Interrupted("asked to stop; what is finished is kept")


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Lets SIGTERM raise `Interrupted` where it finds the program."""

    def stop(number: int, frame: Any) -> None:
        raise Interrupted("asked to stop; what is finished is kept")

    with _handled(stop):
        yield
